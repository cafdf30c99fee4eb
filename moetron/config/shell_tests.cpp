// [ ... ] and [[ ... ]] of a script.
#include <string>
#include <vector>

#include "moetron/config/shell_values.h"

namespace moetron {
namespace {

std::vector<std::string> known_texts(const std::vector<ShellValue>& values) {
  std::vector<std::string> texts;
  for (const ShellValue& value : values)
    if (is_known(value)) texts.push_back(text_of(value));
  return texts;
}

}  // namespace

std::optional<bool> ShellVariables::simple_test(const std::vector<std::string_view>& raw) {
  std::vector<ShellValue> words;
  bool negated = false;
  for (const std::string_view word : raw) {
    if (word == "[" || word == "]" || word == "[[" || word == "]]" || word == "test") continue;
    if (word == "!" && words.empty()) {
      negated = !negated;
    } else {
      words.push_back(expand(word, 0));
    }
  }
  const std::vector<std::string> texts = known_texts(words);
  if (texts.size() != words.size() || words.empty()) return {};
  std::optional<bool> result;
  if (texts.size() == 1 && (texts[0] == "true" || texts[0] == "false")) result = texts[0] == "true";
  if (texts.size() == 2 && texts[0] == "-z") result = texts[1].empty();
  if (texts.size() == 2 && texts[0] == "-n") result = !texts[1].empty();
  if (texts.size() == 3) {
    const std::string& sign = texts[1];
    const bool has_pattern = texts[2].find_first_of("*?[") != std::string::npos;
    if (!has_pattern && (sign == "=" || sign == "==")) result = texts[0] == texts[2];
    if (!has_pattern && sign == "!=") result = texts[0] != texts[2];
    const auto a = shell_number(texts[0]), b = shell_number(texts[2]);
    if (a && b && sign == "-eq") result = *a == *b;
    if (a && b && sign == "-ne") result = *a != *b;
    if (a && b && (sign == "-lt" || sign == "<")) result = *a < *b;
    if (a && b && sign == "-le") result = *a <= *b;
    if (a && b && (sign == "-gt" || sign == ">")) result = *a > *b;
    if (a && b && sign == "-ge") result = *a >= *b;
  }
  return result ? std::optional(*result != negated) : std::nullopt;
}

std::optional<bool> ShellVariables::test(const std::vector<std::string_view>& words) {
  std::vector<std::string_view> part;
  std::optional<bool> result = true;
  bool any = false;  // joined by || to what stands before
  const auto finish = [&] {
    const std::optional<bool> next = simple_test(part);
    part.clear();
    if (any ? result == true || next == true : result == false || next == false) {
      result = any;
    } else {
      result =
          result && next ? std::optional(any ? *result || *next : *result && *next) : std::nullopt;
    }
  };
  for (const std::string_view word : words) {
    const bool is_or = word == "||" || word == "-o";
    if (!is_or && word != "&&" && word != "-a") {
      part.push_back(word);
      continue;
    }
    finish();
    any = is_or;
  }
  finish();
  return result;
}

}  // namespace moetron
