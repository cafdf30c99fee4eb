// [ ... ] and [[ ... ]] of a script.
#include <fnmatch.h>
#include <string>
#include <vector>

#include "moetron/config/shell_values.h"

namespace moetron {
namespace {

using Decision = std::optional<bool>;

bool is_quoted(std::string_view raw) {
  return raw.find_first_of("'\"\\") != std::string_view::npos;
}

bool is_comparison(const std::string& sign) {
  return std::string_view(" -eq -ne -lt -le -gt -ge ").find(" " + sign + " ") !=
         std::string_view::npos;
}

// "-z TEXT" and its like. Of files, only that one without a name is none.
Decision of_one(const std::string& sign, const std::string& text) {
  if (sign == "-z") return text.empty();
  if (sign == "-n") return !text.empty();
  const bool asks_for_file =
      sign.size() == 2 && sign[0] == '-' &&
      std::string_view("abcdefghkprstuwxGLNOS").find(sign[1]) != std::string_view::npos;
  return asks_for_file && text.empty() ? Decision(false) : std::nullopt;
}

// Whether [ ] takes a test for a mistake, which is false with and without ! in front of it.
bool is_mistake(const std::vector<std::string>& words, size_t num_written) {
  if (words.size() == 2) return num_written == 3 && words[0] != "-z" && words[0] != "-n";
  return words.size() == 3 && is_comparison(words[1]) &&
         !(shell_number(words[0]) && shell_number(words[2]));
}

// `is_single`: of [ ], whose numbers are such; in [[ ]] nothing is 0, and a word that is not quoted
// is a pattern.
Decision of_two(const std::string& left, const std::string& sign, const std::string& right,
                bool is_single, bool may_be_pattern) {
  const bool has_pattern = right.find_first_of("*?[") != std::string::npos;
  const bool is_equality = sign == "=" || sign == "==";
  if (is_equality || sign == "!=") {
    bool is_equal = left == right;
    if (has_pattern && may_be_pattern) {
      if (is_single) return {};  // of files
      is_equal = fnmatch(right.c_str(), left.c_str(), 0) == 0;
    }
    return is_equal == is_equality;
  }
  const auto number = [&](const std::string& text) {
    return text.empty() && !is_single ? 0 : shell_number(text);
  };
  const auto a = number(left), b = number(right);
  if (!is_comparison(sign) || !a || !b) return {};
  if (sign == "-eq") return *a == *b;
  if (sign == "-ne") return *a != *b;
  if (sign == "-lt") return *a < *b;
  if (sign == "-le") return *a <= *b;
  if (sign == "-gt") return *a > *b;
  return *a >= *b;
}

}  // namespace

// One test without && and ||; `is_single`: it stands in [ ], where words are split.
Decision ShellVariables::simple_test(const std::vector<std::string_view>& raw, bool is_single) {
  std::vector<std::string> words;
  bool negated = false, last_is_quoted = false;
  size_t num_written = 0;
  for (const std::string_view word : raw) {
    if (word == "!" && num_written == 0) {
      negated = !negated;
      continue;
    }
    ++num_written;
    last_is_quoted = is_quoted(word);
    const ShellValue value = expand(word, 0);
    const std::optional<std::string> text = shell_text(value);
    if (!text) return {};
    if (!is_single || last_is_quoted) {
      words.push_back(*text);
      continue;
    }
    for (const ShellValue& part : split_into_words({{.text = *text, .splits = true}}))
      words.push_back(text_of(part));
  }
  if (is_single && is_mistake(words, num_written)) return false;
  Decision result;
  switch (words.size()) {
    case 0:
      result = false;
      break;
    case 1:
      result = !words[0].empty();
      break;
    case 2:
      result = of_one(words[0], words[1]);
      break;
    case 3:
      result = of_two(words[0], words[1], words[2], is_single, !last_is_quoted);
      break;
    default:
      return {};
  }
  return result ? Decision(*result != negated) : std::nullopt;
}

Decision ShellVariables::test(const std::vector<std::string_view>& words) {
  std::vector<std::string_view> part;
  Decision result = true;
  bool any = false;  // joined by || to what stands before
  bool is_single = true, is_inside = false, is_test = false, is_negated = false;
  const auto finish = [&] {
    const bool is_word = part.size() == 1 && (part[0] == "true" || part[0] == "false");
    Decision next;
    if (is_test) {
      next = simple_test(part, is_single);
    } else if (is_word) {
      next = part[0] == "true";
    }
    part.clear();
    if (next && is_negated) next = !*next;
    is_negated = false;
    if (any ? result == true || next == true : result == false || next == false) {
      result = any;
    } else {
      result = result && next ? Decision(any ? *result || *next : *result && *next) : std::nullopt;
    }
  };
  for (const std::string_view word : words) {
    const bool opens = word == "[" || word == "[[" || word == "test";
    if (word == "!" && part.empty() && !is_inside) {
      is_negated = !is_negated;
      continue;
    }
    if (opens && part.empty()) {
      is_test = true;
      is_inside = word != "test";
      is_single = word != "[[";
      continue;
    }
    if (word == "]" || word == "]]") {
      is_inside = false;
      continue;
    }
    const bool is_or = word == "||" || word == "-o";
    if (!is_or && word != "&&" && word != "-a") {
      part.push_back(word);
      continue;
    }
    finish();
    any = is_or;
    is_test = is_inside || word == "-a" || word == "-o";
  }
  finish();
  return result;
}

}  // namespace moetron
