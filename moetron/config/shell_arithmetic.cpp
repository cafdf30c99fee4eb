#include "moetron/base/parse_number.h"
#include "moetron/config/shell_tokens.h"
#include "moetron/config/shell_values.h"

namespace moetron {
namespace {

using Number = std::optional<int64_t>;

// sum = product {+|- product}; product = unary {*|/|% unary}; unary = [+|-] (number | name | (sum))
class Calculation {
 public:
  Calculation(std::string_view text, const std::function<Number(std::string_view)>& number)
      : text_(text), number_(number) {}

  Number result() {
    const Number value = sum(0);
    return peek() == '\0' && at_ == text_.size() ? value : std::nullopt;
  }

 private:
  char peek() {
    while (at_ < text_.size() && (is_blank(text_[at_]) || text_[at_] == '\n')) ++at_;
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  Number sum(int depth) {
    Number left = product(depth);
    for (char sign = peek(); left && (sign == '+' || sign == '-'); sign = peek()) {
      ++at_;
      left = combined(left, sign, product(depth));
    }
    return left;
  }

  Number product(int depth) {
    Number left = unary(depth);
    for (char sign = peek(); left && (sign == '*' || sign == '/' || sign == '%'); sign = peek()) {
      ++at_;
      left = combined(left, sign, unary(depth));
    }
    return left;
  }

  Number unary(int depth) {
    if (depth > kMostNested) return {};
    const char first = peek();
    if (first == '-' || first == '+') {
      ++at_;
      return combined(0, first, unary(depth + 1));
    }
    if (first == '(') {
      ++at_;
      const Number inner = sum(depth + 1);
      if (peek() != ')') return {};
      ++at_;
      return inner;
    }
    const size_t begin = at_;
    while (at_ < text_.size() && is_in_name(text_[at_])) ++at_;
    const std::string_view word = text_.substr(begin, at_ - begin);
    if (!word.empty() && begins_name(word.front())) return number_(word);
    return shell_number(word);
  }

  static Number combined(Number left, char sign, Number right) {
    if (!left || !right) return {};
    int64_t result = 0;
    const bool divides = sign == '/' || sign == '%';
    if (divides && (*right == 0 || *right == -1)) return {};
    bool overflows = false;
    if (sign == '+') overflows = __builtin_add_overflow(*left, *right, &result);
    if (sign == '-') overflows = __builtin_sub_overflow(*left, *right, &result);
    if (sign == '*') overflows = __builtin_mul_overflow(*left, *right, &result);
    if (sign == '/') result = *left / *right;
    if (sign == '%') result = *left % *right;
    return overflows ? Number() : Number(result);
  }

  std::string_view text_;
  const std::function<Number(std::string_view)>& number_;
  size_t at_ = 0;
};

}  // namespace

Number shell_number(std::string_view text) {
  const auto is_space = [](char c) { return is_blank(c) || c == '\n'; };
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return parse_number<int64_t>(text);
}

Number shell_arithmetic(std::string_view text,
                        const std::function<Number(std::string_view)>& number) {
  return Calculation(text, number).result();
}

}  // namespace moetron
