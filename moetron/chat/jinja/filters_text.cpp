// Filters that make texts.
#include <algorithm>

#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/methods.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/printf.h"
#include "moetron/chat/jinja/text.h"
#include "moetron/tokenizer/unicode.h"

namespace moetron::jinja {
namespace {

// jinja2's own rule: words begin behind - ( { [ < and white space.
std::string title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  const auto add_word = [&](size_t end) {
    if (begin >= end) return;
    const size_t first = decode_utf8(text.data() + begin).length;
    out += to_upper(text.substr(begin, first));
    out += to_lower(text.substr(begin + first, end - begin - first));
  };
  for (size_t at = 0; at < text.size();) {
    const Character character = decode_utf8(text.data() + at);
    const char32_t c = character.value;
    if (c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || is_python_space(c)) {
      add_word(at);
      out += text.substr(at, character.length);
      begin = at + character.length;
    }
    at += character.length;
  }
  add_word(text.size());
  return out;
}

Value indented(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_indent", {"width", "first", "blank"}, 0);
  if (!value.is_string()) {
    if (value.is_undefined()) fail_undefined(value);
    fail("unsupported operand type(s) for +=: '", type_name(value), "' and 'str'");
  }
  std::string indent(4, ' ');
  if (bound.has(0) && bound[0].is_string()) {
    indent = bound[0].text();
  } else if (bound.has(0)) {
    const int64_t width = std::max<int64_t>(integer_of(bound[0]), 0);
    budget.allocate(static_cast<uint64_t>(width));
    indent = std::string(static_cast<size_t>(width), ' ');
  }
  const std::string text = value.text() + "\n";
  const std::vector<std::string_view> lines = split_lines(text, false);
  budget.allocate((indent.size() + sizeof(std::string_view)) * lines.size() + text.size());
  const bool with_blank = bound.flag(2, false);
  std::string out;
  if (bound.flag(1, false)) out = indent;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (with_blank || !lines[i].empty())) out += indent;
    out += lines[i];
  }
  return text_value(std::move(out));
}

Value truncated(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_truncate", {"length", "killwords", "end", "leeway"}, 0);
  const int64_t length = bound.has(0) ? integer_of(bound[0]) : 255;
  std::string end = "...";
  if (bound.has(2)) end = string_of(bound[2], "end");
  const int64_t leeway = bound.has(3) && !bound[3].is_none() ? integer_of(bound[3]) : 5;
  const int64_t kept = length - count_characters(end);
  if (kept < 0)
    fail("expected length >= ", std::to_string(count_characters(end)), ", got ",
         std::to_string(length));
  if (leeway < 0) fail("expected leeway >= 0, got ", std::to_string(leeway));
  const std::optional<int64_t> size = length_of(value);
  if (!size) fail("object of type '", type_name(value), "' has no len()");
  if (*size <= length + leeway) return value;
  const std::string& text = string_of(value, "truncate's value");
  std::string_view out = std::string_view(text).substr(0, byte_of_character(text, kept));
  if (!bound.flag(1, false)) out = out.substr(0, out.rfind(' '));
  return make_string(std::string(out).append(end), budget);
}

Value as_json(const Value& value, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ensure_ascii = bound.flag(0, false);
  style.sort_keys = bound.flag(3, false);
  const Value indent = bound.get(1, {});
  if (indent.is_string()) {
    style.indent = indent.text();
  } else if (!indent.is_none()) {
    const int64_t width = std::max<int64_t>(integer_of(indent), 0);
    budget.allocate(static_cast<uint64_t>(width));
    style.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (style.indent) style.item_separator.assign(1, ',');
  const Value separators = bound.get(2, {});
  if (!separators.is_none()) {
    const Values pair = list_of(separators, budget);
    if (pair.size() != 2)
      fail(pair.size() > 2 ? "too many" : "not enough", " values to unpack (expected 2)");
    style.item_separator = string_of(pair[0], "a separator");
    style.key_separator = string_of(pair[1], "a separator");
  }
  return text_value(to_json(value, style, budget));
}

Value escaped(const std::string& name, const Value& value, Budget& budget) {
  if (value.is_string() && value.as<String>().is_markup && name != "forceescape") return value;
  std::string text = to_text(value, budget);
  if (name != "safe") {
    budget.allocate(text.size() * 5);
    text = escape_html(text);
  }
  Value result = make_string(std::move(text), budget);
  result.as<String>().is_markup = true;
  return result;
}

Value replaced(const std::string& text, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "do_replace", {"old", "new", "count"}, 2);
  const Value count = bound.get(2, {});
  return make_replaced(text, to_text(bound[0], budget), to_text(bound[1], budget),
                       count.is_none() ? -1 : integer_of(count), budget);
}

Value formatted(const std::string& text, const Arguments& arguments, Budget& budget) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    fail("can't handle positional and keyword arguments at the same time");
  if (arguments.named.empty())
    return make_string(format_percent(text, make_tuple(arguments.positional, budget), budget),
                       budget);
  auto values = std::make_shared<Dict>();
  for (const auto& [name, value] : arguments.named) values->set(text_value(name), value);
  return make_string(format_percent(text, values, budget), budget);
}

}  // namespace

Value filter_text(const std::string& name, const Value& value, const Arguments& arguments,
                  Budget& budget) {
  if (name == "tojson") return as_json(value, arguments, budget);
  if (name == "indent") return indented(value, arguments, budget);
  if (name == "truncate") return truncated(value, arguments, budget);
  const std::string text = to_text(value, budget);
  budget.step(text.size() / 16);
  if (name == "replace") return replaced(text, arguments, budget);
  if (name == "format") return formatted(text, arguments, budget);
  if (name == "trim") {
    const Bound bound(arguments, "do_trim", {"chars"}, 0);
    const Value characters = bound.get(0, {});
    if (characters.is_none()) return make_string(std::string(strip(text, Side::kBoth)), budget);
    return make_string(std::string(strip(text, Side::kBoth, string_of(characters, "strip arg"))),
                       budget);
  }
  if (name == "center") {
    const Bound bound(arguments, "do_center", {"width"}, 0);
    return call_method(text_value(text), "center", {{bound.get(0, 80)}, {}}, budget);
  }
  const Bound none(arguments, name, {}, 0);
  if (name == "upper") return make_string(to_upper(text), budget);
  if (name == "lower") return make_string(to_lower(text), budget);
  if (name == "capitalize") return make_string(capitalize(text), budget);
  if (name == "title") return make_string(title_words(text), budget);
  if (name == "string") return value.is_string() ? value : make_string(text, budget);
  return escaped(name, value, budget);  // e, escape, forceescape, safe
}

}  // namespace moetron::jinja
