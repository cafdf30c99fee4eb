// What stands behind "is" in templates.
#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

constexpr std::array<std::string_view, 23> kPlainTests = {
    "odd",    "even",     "defined",  "undefined", "filter",  "test",   "none",       "boolean",
    "false",  "true",     "integer",  "float",     "lower",   "upper",  "string",     "mapping",
    "number", "sequence", "iterable", "callable",  "escaped", "sameas", "divisibleby"};

struct NamedComparison {
  std::string_view name;
  Comparison comparison;
};

constexpr std::array<NamedComparison, 16> kComparisons{{
    {"==", Comparison::kEqual},
    {"eq", Comparison::kEqual},
    {"equalto", Comparison::kEqual},
    {"!=", Comparison::kNotEqual},
    {"ne", Comparison::kNotEqual},
    {">", Comparison::kGreater},
    {"gt", Comparison::kGreater},
    {"greaterthan", Comparison::kGreater},
    {"ge", Comparison::kGreaterEqual},
    {">=", Comparison::kGreaterEqual},
    {"<", Comparison::kLess},
    {"lt", Comparison::kLess},
    {"lessthan", Comparison::kLess},
    {"<=", Comparison::kLessEqual},
    {"le", Comparison::kLessEqual},
    {"in", Comparison::kIn},
}};

std::optional<Comparison> comparison_named(const std::string& name) {
  for (const NamedComparison& entry : kComparisons)
    if (entry.name == name) return entry.comparison;
  return std::nullopt;
}

bool is_callable(const Value& value) {
  if (!value.is_object()) return false;
  switch (value.object().kind) {
    case Kind::kUndefined:
    case Kind::kMethod:
    case Kind::kFunction:
    case Kind::kMacro:
    case Kind::kLoop:
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}

bool is_same(const Value& left, const Value& right, Budget& budget) {
  if (left.is_object() || right.is_object()) return left.identity() == right.identity();
  return type_name(left) == type_name(right) && equal(left, right, budget);
}

bool has_rest(const Value& value, const Value& by, int64_t rest, Budget& budget) {
  return equal(compute(Operator::kMod, value, by, budget), rest, budget);
}

bool test_type(const std::string& name, const Value& value, Budget& budget) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "boolean") return value.is_bool();
  if (name == "true") return value.is_bool() && value.as_bool();
  if (name == "false") return value.is_bool() && !value.as_bool();
  if (name == "integer") return value.is_int();
  if (name == "float") return value.is_float();
  if (name == "number") return value.is_number();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is(Kind::kDict);
  if (name == "sequence") return length_of(value).has_value() && !value.is(Kind::kView);
  if (name == "iterable") return is_iterable(value) || value.is(Kind::kLoop);
  if (name == "callable") return is_callable(value);
  if (name == "escaped") return value.is_string() && value.as<String>().is_markup;
  if (name == "lower") return *test_text("islower", to_text(value, budget));
  if (name == "upper") return *test_text("isupper", to_text(value, budget));
  if (name == "odd") return has_rest(value, 2, 1, budget);
  if (name == "even") return has_rest(value, 2, 0, budget);
  if (name == "filter") return value.is_string() && has_filter(value.text());
  return value.is_string() && has_test(value.text());  // test
}

}  // namespace

bool has_test(const std::string& name) {
  return comparison_named(name).has_value() ||
         std::find(kPlainTests.begin(), kPlainTests.end(), name) != kPlainTests.end();
}

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments,
                Budget& budget) {
  const Budget::Level level(budget);
  budget.step();
  if (!has_test(name)) fail("No test named '", name, "' found.");
  if (const std::optional<Comparison> comparison = comparison_named(name)) {
    const Bound bound(arguments, name, {"other"}, 1);
    return compare(*comparison, value, bound[0], budget);
  }
  if (name == "sameas") {
    const Bound bound(arguments, name, {"other"}, 1);
    return is_same(value, bound[0], budget);
  }
  if (name == "divisibleby") {
    const Bound bound(arguments, name, {"num"}, 1);
    return has_rest(value, bound[0], 0, budget);
  }
  const Bound none(arguments, name, {}, 0);
  return test_type(name, value, budget);
}

}  // namespace moetron::jinja
