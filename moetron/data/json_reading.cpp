#include "moetron/data/json_reading.h"

#include <algorithm>
#include <cctype>

namespace moetron {
namespace {

size_t count_digits(std::string_view text) {
  return std::min(text.find_first_not_of("0123456789"), text.size());
}

// Whether all of `text` is a number by JSON's grammar.
bool is_json_number(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const size_t whole = count_digits(text);
  if (whole == 0 || (whole > 1 && text[0] == '0')) return false;
  text.remove_prefix(whole);
  if (text.starts_with('.')) {
    const size_t digits = count_digits(text.substr(1));
    if (digits == 0) return false;
    text.remove_prefix(1 + digits);
  }
  if (text.empty()) return true;
  if (text[0] != 'e' && text[0] != 'E') return false;
  text.remove_prefix(1);
  if (text.starts_with('+') || text.starts_with('-')) text.remove_prefix(1);
  return !text.empty() && count_digits(text) == text.size();
}

// The length of a word that could be a number, or 0.
size_t word_length(std::string_view text) {
  const auto first = static_cast<unsigned char>(text.front());
  if (std::isalpha(first) == 0 && std::isdigit(first) == 0 && first != '-') return 0;
  const auto is_part = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '-' || c == '+' || c == '.';
  };
  return static_cast<size_t>(std::ranges::find_if_not(text, is_part) - text.begin());
}

bool is_python_number(std::string_view word) {
  return word == "NaN" || word == "Infinity" || word == "-Infinity" || is_json_number(word);
}

// `text` with every number replaced by 0; strings stay.
std::string without_numbers(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    if (text[i] == '"') {
      size_t end = i + 1;
      while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
      end = std::min(end + 1, text.size());
      out.append(text, i, end - i);
      i = end;
    } else if (const size_t length = word_length(text.substr(i)); length > 0) {
      const std::string_view word = text.substr(i, length);
      if (is_python_number(word))
        out += '0';
      else
        out += word;
      i += length;
    } else {
      out += text[i++];
    }
  }
  return out;
}

}  // namespace

std::string JsonReading::parse(std::string_view text) {
  auto error = parser_.parse(text.data(), text.size()).get(root_);
  if (!error) return "";
  const std::string_view message = simdjson::error_message(error);
  if (error == simdjson::CAPACITY || error == simdjson::MEMALLOC) return std::string(message);
  const std::string numberless = without_numbers(text);
  if (numberless == text || parser_.parse(numberless).get(root_)) return std::string(message);
  return "";
}

simdjson::simdjson_result<simdjson::dom::element> last_value(simdjson::dom::object object,
                                                             std::string_view key) {
  simdjson::simdjson_result<simdjson::dom::element> found(simdjson::NO_SUCH_FIELD);
  for (const simdjson::dom::key_value_pair field : object)
    if (field.key == key)
      found =
          simdjson::simdjson_result<simdjson::dom::element>(simdjson::dom::element(field.value));
  return found;
}

}  // namespace moetron
