// Filters that make numbers.
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>

#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

// Digits with single underscores between them lose these; nothing where underscores stand
// elsewhere.
std::optional<std::string> plain_digits(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto is_digit = [&text](size_t at) {
      return at < text.size() && std::isalnum(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !is_digit(i - 1) || !is_digit(i + 1)) return std::nullopt;
  }
  return out;
}

// int(text, base) of Python; nothing where it raises ValueError.
std::optional<int64_t> read_integer(std::string_view text, int64_t base) {
  text = strip(text, Side::kBoth);
  bool is_negative = false;
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    is_negative = text[0] == '-';
    text.remove_prefix(1);
  }
  const char letter = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t named = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
    base = named;
  }
  if (base == 0) base = 10;
  if (base < 2 || base > 36) return std::nullopt;
  const std::optional<std::string> digits = plain_digits(text);
  if (!digits || digits->empty()) return std::nullopt;
  int64_t value = 0;
  const std::string number = (is_negative ? "-" : "") + *digits;
  if ((*digits)[0] == '-' || (*digits)[0] == '+') return std::nullopt;
  const auto result =
      std::from_chars(number.data(), number.data() + number.size(), value, static_cast<int>(base));
  if (result.ptr != number.data() + number.size()) return std::nullopt;
  if (result.ec != std::errc()) fail("an integer has more than 64 bits, which is not supported");
  return value;
}

std::optional<double> read_float(std::string_view text) {
  text = strip(text, Side::kBoth);
  const std::optional<std::string> plain = plain_digits(text);
  if (!plain || plain->empty()) return std::nullopt;
  std::string_view digits = *plain;
  double sign = 1;
  if (digits[0] == '-' || digits[0] == '+') {
    sign = digits[0] == '-' ? -1 : 1;
    digits.remove_prefix(1);
  }
  if (digits.empty() || digits[0] == '-') return std::nullopt;
  const std::string word = to_lower(digits);
  if (word == "inf" || word == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (word.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
  double value = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (result.ptr != digits.data() + digits.size()) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) return sign * std::strtod(word.c_str(), nullptr);
  return sign * value;
}

int64_t truncated_float(double value) {
  if (std::fabs(value) > 9.2e18) fail("an integer has more than 64 bits, which is not supported");
  return static_cast<int64_t>(value);
}

Value as_integer(const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "do_int", {"default", "base"}, 0);
  const Value otherwise = bound.get(0, 0);
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return value.as_int();
  std::optional<double> number;
  if (value.is_string()) {
    const int64_t base = bound.has(1) ? integer_of(bound[1]) : 10;
    if (const std::optional<int64_t> integer = read_integer(value.text(), base)) return *integer;
    number = read_float(value.text());
  } else if (value.is_float()) {
    number = value.as_float();
  }
  // Python raises at int(inf) of a float, which this filter does not catch.
  if (number && std::isinf(*number) && value.is_float())
    fail("cannot convert float infinity to integer");
  if (!number || !std::isfinite(*number)) return otherwise;
  return truncated_float(*number);
}

Value as_float(const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "do_float", {"default"}, 0);
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_number()) return value.to_double();
  const std::optional<double> number = value.is_string() ? read_float(value.text()) : std::nullopt;
  return number ? Value(*number) : bound.get(0, 0.0);
}

Value rounded(const Value& value, const Arguments& arguments) {
  const Bound bound(arguments, "do_round", {"precision", "method"}, 0);
  const int64_t precision = bound.has(0) ? integer_of(bound[0]) : 0;
  const std::string method = bound.has(1) && bound[1].is_string() ? bound[1].text()
                             : bound.has(1)                       ? ""
                                                                  : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("method must be common, ceil or floor");
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) fail("type ", type_name(value), " doesn't define __round__ method");
  if (precision < 0 || precision > 300)
    fail("a precision of ", std::to_string(precision), " is not supported");
  const double number = value.to_double();
  if (method == "common") {
    if (value.is_integral()) return value.as_int();
    if (!std::isfinite(number)) return number;
    char buffer[700];
    std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), number);
    return std::strtod(buffer, nullptr);
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = number * scale;
  if (!std::isfinite(scaled)) fail("cannot convert float infinity to integer");
  return (method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale + 0.0;
}

}  // namespace

Value filter_number(const std::string& name, const Value& value, const Arguments& arguments,
                    Budget& budget) {
  budget.step();
  if (name == "int") return as_integer(value, arguments);
  if (name == "float") return as_float(value, arguments);
  if (name == "round") return rounded(value, arguments);
  const Bound none(arguments, name, {}, 0);
  if (value.is_integral()) return value.as_int() < 0 ? negated(value) : Value(value.as_int());
  if (value.is_float()) return std::fabs(value.as_float());
  fail("bad operand type for abs(): '", type_name(value), "'");
}

}  // namespace moetron::jinja
