#include "moetron/config/shell_tokens.h"

#include <algorithm>
#include <cctype>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr size_t kNone = std::string_view::npos;

void check_depth(int depth) {
  MT_CHECK_INPUT(depth <= kMostNested, "brackets and quotes are nested more than ", kMostNested,
                 " deep");
}

size_t end_of_single_quotes(std::string_view text, size_t at) {
  const size_t end = text.find('\'', at + 1);
  MT_CHECK_INPUT(end != kNone, "a quote (') is not closed");
  return end + 1;
}

size_t end_of_backticks(std::string_view text, size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '`') return at + 1;
    if (text[at] == '\\') ++at;
  }
  throw InputError("a backquote (`) is not closed");
}

size_t end_of_double_quotes(std::string_view text, size_t at, int depth) {
  for (++at; at < text.size();) {
    if (text[at] == '"') return at + 1;
    if (text[at] == '\'') {
      ++at;  // nothing special here
    } else {
      at = end_of_part(text, at, depth);
    }
  }
  throw InputError("a quote (\") is not closed");
}

// A # opens a comment where a word could begin; there a quote means nothing.
bool opens_comment(std::string_view text, size_t at) {
  return text[at] == '#' && (at == 0 || is_blank(text[at - 1]) || text[at - 1] == '\n' ||
                             text[at - 1] == '(' || text[at - 1] == ';');
}

size_t end_of_parentheses(std::string_view text, size_t at, int depth) {
  check_depth(depth);
  for (++at; at < text.size();) {
    const char c = text[at];
    if (c == ')') return at + 1;
    if (c == '(') {
      at = end_of_parentheses(text, at, depth + 1);
    } else if (opens_comment(text, at)) {
      at = std::min(text.find('\n', at), text.size());
    } else {
      at = end_of_part(text, at, depth + 1);
    }
  }
  throw InputError("a bracket ( is not closed");
}

size_t end_of_braces(std::string_view text, size_t at, int depth) {
  check_depth(depth);
  for (++at; at < text.size();) {
    if (text[at] == '}') return at + 1;
    at = end_of_part(text, at, depth + 1);
  }
  throw InputError("a brace { is not closed");
}

bool is_assignment_start(std::string_view word) {
  if (word.empty() || word.back() != '=' || !begins_name(word.front())) return false;
  word.remove_suffix(1);
  if (word.back() == '+') word.remove_suffix(1);
  return std::all_of(word.begin(), word.end(), is_in_name);
}

bool is_operator_character(char c) {
  return c == ';' || c == '&' || c == '|' || c == '(' || c == ')' || c == '<' || c == '>';
}

}  // namespace

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

bool begins_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_';
}

bool is_in_name(char c) {
  return begins_name(c) || std::isdigit(static_cast<unsigned char>(c)) != 0;
}

size_t end_of_part(std::string_view text, size_t at, int depth) {
  check_depth(depth);
  const char c = text[at];
  if (c == '\\') return std::min(at + 2, text.size());
  if (c == '\'') return end_of_single_quotes(text, at);
  if (c == '"') return end_of_double_quotes(text, at, depth + 1);
  if (c == '`') return end_of_backticks(text, at);
  if (c == '$' && at + 1 < text.size()) {
    if (text[at + 1] == '(') return end_of_parentheses(text, at + 1, depth + 1);
    if (text[at + 1] == '{') return end_of_braces(text, at + 1, depth + 1);
  }
  return at + 1;
}

ShellTokens::ShellTokens(std::string_view text, std::string name, int first_line)
    : text_(text), name_(std::move(name)), line_(first_line) {}

// Whether there was anything to skip.
bool ShellTokens::skip_blanks() {
  const size_t begin = at_;
  while (at_ < text_.size()) {
    if (text_.substr(at_).starts_with("\\\n") || text_.substr(at_).starts_with("\\\r\n")) {
      at_ = text_.find('\n', at_) + 1;
      ++line_;
    } else if (is_blank(text_[at_])) {
      ++at_;
    } else if (opens_comment(text_, at_)) {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else {
      break;
    }
  }
  return at_ > begin;
}

size_t ShellTokens::end_of_word(size_t at) const {
  const size_t begin = at;
  while (at < text_.size()) {
    const char c = text_[at];
    if (c == '(' && is_assignment_start(text_.substr(begin, at - begin))) {
      return end_of_parentheses(text_, at, 0);
    }
    if (is_blank(c) || c == '\n' || is_operator_character(c)) break;
    at = end_of_part(text_, at);
  }
  return at;
}

// Redirections with what they are attached to: ">&1" is one operator, as is "&>>".
size_t ShellTokens::end_of_operator(size_t at) const {
  const auto is_angle = [](char c) { return c == '<' || c == '>'; };
  const auto at_end = [&](size_t place) { return place >= text_.size(); };
  const bool redirects =
      is_angle(text_[at]) || (text_[at] == '&' && !at_end(at + 1) && text_[at + 1] == '>');
  if (!redirects) {
    const bool is_double =
        !at_end(at + 1) && text_[at + 1] == text_[at] && text_[at] != '(' && text_[at] != ')';
    return at + (is_double ? 2 : 1);
  }
  while (!at_end(at) && (is_angle(text_[at]) || text_[at] == '&' || text_[at] == '|')) ++at;
  while (!at_end(at) && text_[at - 1] != '>' && text_[at - 1] != '<' &&
         (std::isdigit(static_cast<unsigned char>(text_[at])) != 0))
    ++at;
  if (!at_end(at) && text_[at] == '-' && text_[at - 1] == '<') ++at;  // <<-
  return at;
}

ShellToken ShellTokens::next() {
  ShellToken token;
  token.is_attached = !skip_blanks();
  token.line = line_;
  if (at_ >= text_.size()) return token;
  const size_t begin = at_;
  try {
    if (text_[at_] == '\n') {
      token.kind = ShellToken::Kind::kNewline;
      ++at_;
    } else if (is_operator_character(text_[at_])) {
      token.kind = ShellToken::Kind::kOperator;
      at_ = end_of_operator(at_);
    } else {
      token.kind = ShellToken::Kind::kWord;
      at_ = end_of_word(at_);
    }
  } catch (const InputError& error) {
    throw InputError(concat(name_, ", line ", line_, ": ", error.what()));
  }
  token.text = text_.substr(begin, at_ - begin);
  line_ += static_cast<int>(std::count(token.text.begin(), token.text.end(), '\n'));
  return token;
}

void ShellTokens::skip_lines_until(std::string_view delimiter) {
  while (at_ < text_.size()) {
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    std::string_view line = text_.substr(at_, end - at_);
    at_ = std::min(end + 1, text_.size());
    ++line_;
    while (!line.empty() && is_blank(line.front())) line.remove_prefix(1);
    while (!line.empty() && is_blank(line.back())) line.remove_suffix(1);
    if (line == delimiter) return;
  }
}

}  // namespace moetron
