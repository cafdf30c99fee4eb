#include "moetron/chat/jinja/printf.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <optional>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

constexpr int64_t kMaxWidth = 1 << 16;

struct Conversion {
  std::string flags;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char kind = 's';

  bool has(char flag) const { return flags.find(flag) != std::string::npos; }
};

std::string padded(const Conversion& conversion, std::string text, bool is_number) {
  const int64_t missing = conversion.width - count_characters(text);
  if (missing <= 0) return text;
  const auto count = static_cast<size_t>(missing);
  if (conversion.has('-')) return text + std::string(count, ' ');
  if (is_number && conversion.has('0')) {
    const size_t sign =
        !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
    return text.insert(sign, count, '0');
  }
  return text.insert(0, count, ' ');
}

std::string number_text(const Conversion& conversion, const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number())
    fail("%", std::string(1, conversion.kind), " format: a real number is required, not ",
         type_name(value));
  std::string format = "%";
  for (const char flag : {'+', ' ', '#'})
    if (conversion.has(flag)) format += flag;
  const bool is_float = std::string_view("fFeEgG").find(conversion.kind) != std::string_view::npos;
  char buffer[512];
  if (is_float) {
    const double number = value.to_double();
    if (!std::isfinite(number)) fail("a number that is not finite is formatted");
    if (std::fabs(number) > 1e100 || conversion.precision.value_or(6) > 100)
      fail("a format of so many digits is not supported");
    format += ".*";
    format += conversion.kind;
    std::snprintf(buffer, sizeof buffer, format.c_str(),
                  static_cast<int>(conversion.precision.value_or(6)), number);
    return buffer;
  }
  if (value.is_float() && conversion.kind != 'd' && conversion.kind != 'i' &&
      conversion.kind != 'u')
    fail("%", std::string(1, conversion.kind), " format: an integer is required, not float");
  if (value.is_float() && (!std::isfinite(value.as_float()) || std::fabs(value.as_float()) > 9e18))
    fail("an integer has more than 64 bits, which is not supported");
  const int64_t number = value.is_float() ? static_cast<int64_t>(value.as_float()) : value.as_int();
  if (conversion.precision || (conversion.has('#') && conversion.kind == 'o'))
    fail("a precision of integers is not supported");
  const bool is_negative = number < 0;
  const uint64_t size =
      is_negative ? ~static_cast<uint64_t>(number) + 1 : static_cast<uint64_t>(number);
  const char* plain = conversion.kind == 'x'   ? "%lx"
                      : conversion.kind == 'X' ? "%lX"
                      : conversion.kind == 'o' ? "%lo"
                                               : "%lu";
  std::snprintf(buffer, sizeof buffer, plain, static_cast<unsigned long>(size));
  std::string digits = buffer;
  if (conversion.has('#') && conversion.kind != 'd' && conversion.kind != 'i' &&
      conversion.kind != 'u')
    digits.insert(0, conversion.kind == 'x' ? "0x" : "0X");
  return (is_negative ? "-" : conversion.has('+') ? "+" : conversion.has(' ') ? " " : "") + digits;
}

std::string converted(const Conversion& conversion, const Value& value, Budget& budget) {
  switch (conversion.kind) {
    case 's':
    case 'r': {
      std::string text =
          conversion.kind == 's' ? to_text(value, budget) : representation(value, budget);
      if (conversion.precision) text.resize(byte_of_character(text, *conversion.precision));
      return padded(conversion, std::move(text), false);
    }
    case 'c':
      if (value.is_string() && count_characters(value.text()) == 1)
        return padded(conversion, value.text(), false);
      fail("%c of other than a character is not supported");
    default:
      return padded(conversion, number_text(conversion, value), true);
  }
}

class PercentReader {
 public:
  PercentReader(const std::string& format, const Value& values, Budget& budget)
      : format_(format), values_(values), budget_(budget) {}

  std::string run() {
    while (at_ < format_.size()) {
      const size_t mark = std::min(format_.find('%', at_), format_.size());
      out_.append(format_, at_, mark - at_);
      at_ = mark;
      if (at_ < format_.size()) read_conversion();
    }
    const bool takes_all = values_.is(Kind::kTuple)
                               ? next_ == values_.as<Sequence>().items.size()
                               : next_ > 0 || values_.is(Kind::kDict) || values_.is(Kind::kList);
    if (!takes_all) fail("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char peek() const {
    if (at_ >= format_.size()) fail("incomplete format");
    return format_[at_];
  }
  int64_t read_number() {
    if (peek() == '*') {
      ++at_;
      return integer_of(take());
    }
    int64_t number = 0;
    while (peek() >= '0' && peek() <= '9') {
      number = std::min(number * 10 + (format_[at_++] - '0'), kMaxWidth + 1);
    }
    return number;
  }
  Value take() {
    if (values_.is(Kind::kTuple)) {
      const Values& items = values_.as<Sequence>().items;
      if (next_ == items.size()) fail("not enough arguments for format string");
      return items[next_++];
    }
    if (next_++ > 0) fail("not enough arguments for format string");
    return values_;
  }
  Value take_named() {
    const size_t end = format_.find(')', at_);
    if (end == std::string::npos) fail("incomplete format key");
    const std::string name = format_.substr(at_ + 1, end - at_ - 1);
    at_ = end + 1;
    if (!values_.is(Kind::kDict)) fail("format requires a mapping");
    const Value* found = values_.as<Dict>().find(name);
    if (found == nullptr) fail(quote_text(name));
    return *found;
  }
  void read_conversion() {
    budget_.step();
    ++at_;
    std::optional<Value> named;
    if (peek() == '(') named = take_named();
    Conversion conversion;
    while (std::string_view("-+ #0").find(peek()) != std::string_view::npos)
      conversion.flags += format_[at_++];
    conversion.width = read_number();
    if (conversion.width < 0) conversion.flags += '-';
    conversion.width = std::abs(conversion.width);
    if (peek() == '.') {
      ++at_;
      conversion.precision = std::max<int64_t>(read_number(), 0);
    }
    if (conversion.width > kMaxWidth || conversion.precision.value_or(0) > kMaxWidth)
      fail("a format of so many characters is not supported");
    while (peek() == 'l' || peek() == 'h' || peek() == 'L') ++at_;
    conversion.kind = peek();
    ++at_;
    if (conversion.kind == '%') {
      out_ += '%';
      return;
    }
    if (std::string_view("srdiuxXofFeEgGc").find(conversion.kind) == std::string_view::npos)
      fail("unsupported format character '", std::string(1, conversion.kind), "'");
    out_ += converted(conversion, named ? *named : take(), budget_);
    budget_.allocate(static_cast<uint64_t>(conversion.width));
  }

  const std::string& format_;
  const Value& values_;
  Budget& budget_;
  std::string out_;
  size_t at_ = 0;
  size_t next_ = 0;  // of the values
};

// The value of a field such as "0", "name", "user.name" or "items[2]"; `automatic` counts empty
// names.
Value find_field(const std::string& field, const Arguments& arguments, size_t& automatic,
                 Budget& budget) {
  const size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string first = field.substr(0, end);
  Value value;
  if (first.find_first_not_of("0123456789") == std::string::npos) {
    const size_t place = first.empty()      ? automatic++
                         : first.size() > 6 ? SIZE_MAX
                                            : std::stoul(first);
    if (place >= arguments.positional.size())
      fail("Replacement index ", std::to_string(place), " out of range for positional args tuple");
    value = arguments.positional[place];
  } else {
    const Value* found = arguments.find(first);
    if (found == nullptr) fail(quote_text(first));
    value = *found;
  }
  for (size_t at = end; at < field.size();) {
    const bool is_attribute = field[at] == '.';
    const size_t next = is_attribute ? std::min(field.find_first_of(".[", at + 1), field.size())
                                     : field.find(']', at);
    if (next == std::string::npos) fail("Missing ']' in format string");
    const std::string name = field.substr(at + 1, next - at - 1);
    if (name.empty()) fail("Empty attribute in format string");
    const bool is_number =
        name.find_first_not_of("0123456789") == std::string::npos && name.size() < 7;
    value = is_attribute
                ? get_attribute(value, name, budget)
                : get_item(value, is_number ? Value(int64_t{std::stol(name)}) : text_value(name),
                           budget);
    at = is_attribute ? next : next + 1;
  }
  return value;
}

}  // namespace

std::string format_percent(const std::string& format, const Value& values, Budget& budget) {
  return PercentReader(format, values, budget).run();
}

std::string format_braces(const std::string& format, const Arguments& arguments, Budget& budget) {
  std::string out;
  size_t automatic = 0;
  for (size_t at = 0; at < format.size();) {
    const char byte = format[at];
    if (byte != '{' && byte != '}') {
      out += byte;
      ++at;
    } else if (at + 1 < format.size() && format[at + 1] == byte) {
      out += byte;
      at += 2;
    } else if (byte == '}') {
      fail("Single '}' encountered in format string");
    } else {
      const size_t end = format.find('}', at);
      if (end == std::string::npos) fail("Single '{' encountered in format string");
      std::string field = format.substr(at + 1, end - at - 1);
      if (field.find_first_of(":{") != std::string::npos)
        fail("a format specification ({", field, "}) is not supported");
      const size_t mark = field.find('!');
      const std::string conversion = mark == std::string::npos ? "" : field.substr(mark + 1);
      if (mark != std::string::npos && conversion != "r" && conversion != "s")
        fail("Unknown conversion specifier ", conversion);
      const Value value = find_field(field.substr(0, mark), arguments, automatic, budget);
      out += conversion == "r" ? representation(value, budget) : to_text(value, budget);
      at = end + 1;
    }
  }
  return out;
}

}  // namespace moetron::jinja
