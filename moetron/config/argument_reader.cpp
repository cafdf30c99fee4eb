#include "moetron/config/argument_reader.h"

#include <algorithm>
#include <cctype>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr size_t kMostOfName = 100;  // characters of a name that nobody knows

bool is_boolean(std::string word) {
  for (char& c : word) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return word == "true" || word == "false";
}

std::string shortened(const std::string& text) {
  return text.size() > kMostOfName ? text.substr(0, kMostOfName) + "..." : text;
}

}  // namespace

bool is_option(const std::string& word) {
  return word.size() > 2 && word.starts_with("--");
}

ReadArgument ArgumentReader::next() {
  ReadArgument read{.begin = next_};
  const std::string word = words_[next_++];
  read.end = next_;
  if (!is_option(word)) {
    read.shown = shortened(word);
    return read;
  }
  const size_t equals = word.find('=');
  read.shown = word.substr(0, equals);
  const auto found = option_table().find(read.shown.substr(2), command_);
  if (!found) {
    const std::string near = option_table().suggestion(read.shown.substr(2), "--");
    read.shown = shortened(read.shown);
    read.mistake = concat("unknown option ", read.shown, near);
    while (next_ < words_.size() && !is_option(words_[next_])) ++next_;  // its values
  } else {
    Setting& setting = read.setting.emplace(
        Setting{found->spec, {}, read.shown, !found->implied.empty(), found->factor});
    if (!found->implied.empty()) {
      if (equals != std::string::npos) read.mistake = read.shown + " takes no value";
      setting.values = {{ScalarType::kUntyped, found->implied}};
    } else if (equals != std::string::npos) {
      setting.values = {{ScalarType::kUntyped, word.substr(equals + 1)}};
    } else {
      setting.values = read_values(*found->spec);
    }
  }
  read.end = next_;
  return read;
}

std::vector<std::string> ArgumentReader::rest() {
  const auto begin =
      words_.begin() + static_cast<std::ptrdiff_t>(std::exchange(next_, words_.size()));
  return {begin, words_.end()};
}

std::vector<Scalar> ArgumentReader::read_values(const OptionSpec& spec) {
  std::vector<Scalar> values;
  const bool has_next = next_ < words_.size();
  if (spec.kind == ValueKind::kFlag) {
    if (has_next && is_boolean(words_[next_])) return {{ScalarType::kUntyped, words_[next_++]}};
    return {{ScalarType::kUntyped, "true"}};
  }
  const bool is_list = spec.kind == ValueKind::kIntegers || spec.kind == ValueKind::kNumbers ||
                       spec.kind == ValueKind::kTexts;
  while (next_ < words_.size() && !is_option(words_[next_]) && (is_list || values.empty()))
    values.push_back({ScalarType::kUntyped, words_[next_++]});
  if (values.empty() && !spec.bare_value.empty())
    values.push_back({ScalarType::kUntyped, spec.bare_value});
  return values;
}

}  // namespace moetron
