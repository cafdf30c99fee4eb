#include "moetron/chat/marked_text.h"

#include <algorithm>

namespace moetron {
namespace {

constexpr std::string_view kBegin = "\xF3\xB0\x80\x80";  // U+F0000
constexpr std::string_view kEnd = "\xF3\xB0\x80\x81";    // U+F0001

size_t find_mark(std::string_view text, size_t from) {
  return std::min({text.find(kBegin, from), text.find(kEnd, from), text.size()});
}

}  // namespace

ControlTokenMarker::ControlTokenMarker(const std::vector<std::string>& tokens) {
  std::vector<AddedToken> added;
  added.reserve(tokens.size());
  for (const std::string& content : tokens) {
    added.push_back({.content = content, .id = static_cast<int32_t>(added.size())});
  }
  finder_ = AddedTokenFinder(added, tokens);
}

std::string ControlTokenMarker::marked(std::string_view text) const {
  std::string plain;
  for (size_t at = 0; at < text.size();) {
    const size_t mark = find_mark(text, at);
    plain += text.substr(at, mark - at);
    at = mark + kBegin.size();
  }
  std::vector<TextPart> parts;
  finder_.split(plain, parts);
  std::string result;
  for (const TextPart& part : parts) {
    if (part.id >= 0) result += kBegin;
    result += part.text;
    if (part.id >= 0) result += kEnd;
  }
  return result;
}

Json ControlTokenMarker::marked(const Json& value) const {
  if (value.is_string()) return marked(std::string_view(value.get_ref<const std::string&>()));
  if (!value.is_structured()) return value;
  Json result = value.is_array() ? Json::array() : Json::object();
  if (value.is_array()) {
    for (const Json& item : value) result.push_back(marked(item));
  } else {
    for (const auto& [key, item] : value.items()) result[key] = marked(item);
  }
  return result;
}

size_t UnmarkedText::place_of(size_t marked_place) const {
  const auto behind = std::upper_bound(mark_ends.begin(), mark_ends.end(), marked_place);
  return marked_place - static_cast<size_t>(behind - mark_ends.begin()) * kBegin.size();
}

UnmarkedText without_marks(std::string_view marked) {
  UnmarkedText result;
  bool is_open = false;
  for (size_t at = 0; at <= marked.size();) {
    const size_t mark = find_mark(marked, at);
    result.text += marked.substr(at, mark - at);
    // A template may tear the marks of a token apart; what is left of it is cut there, too.
    const bool closes = is_open && marked.substr(mark).starts_with(kEnd);
    result.pieces.push_back({result.text.size(), closes});
    if (mark == marked.size()) break;
    is_open = marked.substr(mark).starts_with(kBegin);
    at = mark + kBegin.size();
    result.mark_ends.push_back(at);
  }
  return result;
}

bool ends_with_mark(std::string_view marked) {
  return marked.ends_with(kBegin) || marked.ends_with(kEnd);
}

}  // namespace moetron
