#include "moetron/data/text_format.h"

#include <algorithm>
#include <cctype>
#include <string>

#include "moetron/data/json_reading.h"

namespace moetron {
namespace {

// Of a file whose first line is damaged, to see whether others are JSON objects.
constexpr size_t kProbedBytes = size_t{1} << 20;

std::string lower(std::string text) {
  std::ranges::transform(text, text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

bool is_object(std::string_view text) {
  JsonReading reading;
  simdjson::dom::object object;
  return reading.parse(text).empty() && !reading.root().get(object);
}

bool is_json(std::string_view text) {
  JsonReading reading;
  return reading.parse(text).empty();
}

// Whether some line near the beginning is an object.
bool has_object_line(std::string_view text) {
  text = text.substr(0, kProbedBytes);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t first = line.find_first_not_of(kBlanks);
    if (first != std::string_view::npos && line[first] == '{' && is_object(line)) return true;
  }
  return false;
}

// Text that begins with { or [.
TextKind json_kind(std::string_view text) {
  const size_t end = text.find('\n');
  const bool has_more =
      end != std::string_view::npos && text.find_first_not_of(kBlanks, end) != text.npos;
  if (text.front() == '[' || !has_more) return TextKind::kDocument;
  if (is_object(text.substr(0, end))) return TextKind::kLines;
  // An object over several lines, or lines of which the first is damaged.
  return !is_json(text) && has_object_line(text) ? TextKind::kLines : TextKind::kDocument;
}

}  // namespace

std::optional<TextKind> kind_by_name(const std::filesystem::path& path, std::string_view text) {
  const std::string ending = lower(path.extension().string());
  if (ending == ".jsonl" || ending == ".ndjson") return TextKind::kLines;
  if (ending == ".txt") return TextKind::kPlain;
  if (ending != ".json") return std::nullopt;
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return TextKind::kLines;
  return json_kind(text.substr(first));
}

std::optional<TextKind> json_kind_by_content(std::string_view text) {
  const size_t first = text.find_first_not_of(kBlanks);
  if (first == std::string_view::npos || (text[first] != '{' && text[first] != '['))
    return std::nullopt;
  text.remove_prefix(first);
  if (text.front() == '{' && has_object_line(text)) return json_kind(text);
  return is_json(text) ? std::optional(TextKind::kDocument) : std::nullopt;
}

bool is_about_data(const std::filesystem::path& path) {
  const std::string stem = lower(path.stem().string());
  constexpr std::string_view kNames[] = {"readme",  "license", "licence",
                                         "copying", "notice",  "changelog"};
  return std::ranges::find(kNames, stem) != std::end(kNames);
}

}  // namespace moetron
