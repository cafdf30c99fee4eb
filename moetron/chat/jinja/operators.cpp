#include "moetron/chat/jinja/operators.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/printf.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

constexpr const char* kSymbols[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};

[[noreturn]] void fail_operands(Operator op, const Value& left, const Value& right) {
  fail("unsupported operand type(s) for ", kSymbols[static_cast<int>(op)], ": '", type_name(left),
       "' and '", type_name(right), "'");
}

[[noreturn]] void fail_overflow() {
  fail("an integer has more than 64 bits, which is not supported");
}

int64_t floor_divide(int64_t left, int64_t right) {
  if (right == 0) fail("integer division or modulo by zero");
  if (right == -1) {
    if (left == std::numeric_limits<int64_t>::min()) fail_overflow();
    return -left;
  }
  const int64_t quotient = left / right;
  return quotient * right != left && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

int64_t modulo(int64_t left, int64_t right) {
  if (right == 0) fail("integer modulo by zero");
  if (right == -1) return 0;
  const int64_t rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

double modulo(double left, double right) {
  if (right == 0) fail("float modulo");
  double rest = std::fmod(left, right);
  if (rest == 0) return std::copysign(0.0, right);
  if ((rest < 0) != (right < 0)) rest += right;
  return rest;
}

double floor_divide(double left, double right) {
  if (right == 0) fail("float floor division by zero");
  const double rest = modulo(left, right);
  const double quotient = (left - rest) / right;
  if (quotient == 0) return std::copysign(0.0, left / right);
  const double floored = std::floor(quotient);
  return quotient - floored > 0.5 ? floored + 1 : floored;
}

Value power(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) fail("0.0 cannot be raised to a negative power");
    return std::pow(static_cast<double>(base), static_cast<double>(exponent));
  }
  if (base == 0 || base == 1) return exponent == 0 ? int64_t{1} : base;
  if (base == -1) return exponent % 2 == 0 ? int64_t{1} : int64_t{-1};
  int64_t result = 1;
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(result, base, &result)) fail_overflow();
  return result;
}

Value compute_integers(Operator op, int64_t left, int64_t right) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(left, right, &result)) fail_overflow();
      return result;
    case Operator::kSub:
      if (__builtin_sub_overflow(left, right, &result)) fail_overflow();
      return result;
    case Operator::kMul:
      if (__builtin_mul_overflow(left, right, &result)) fail_overflow();
      return result;
    case Operator::kDiv:
      if (right == 0) fail("division by zero");
      return static_cast<double>(left) / static_cast<double>(right);
    case Operator::kFloorDiv:
      return floor_divide(left, right);
    case Operator::kMod:
      return modulo(left, right);
    case Operator::kPow:
      return power(left, right);
  }
  return {};
}

Value compute_floats(Operator op, double left, double right) {
  switch (op) {
    case Operator::kAdd:
      return left + right;
    case Operator::kSub:
      return left - right;
    case Operator::kMul:
      return left * right;
    case Operator::kDiv:
      if (right == 0) fail("float division by zero");
      return left / right;
    case Operator::kFloorDiv:
      return floor_divide(left, right);
    case Operator::kMod:
      return modulo(left, right);
    case Operator::kPow:
      if (left == 0 && right < 0) fail("0.0 cannot be raised to a negative power");
      if (left < 0 && std::trunc(right) != right) fail("complex numbers are not supported");
      if (const double result = std::pow(left, right);
          !std::isinf(result) || std::isinf(left) || std::isinf(right))
        return result;
      fail("(34, 'Numerical result out of range')");
  }
  return {};
}

Value join_strings(const String& left, const String& right, Budget& budget) {
  if (!left.is_markup && !right.is_markup) return make_string(left.text + right.text, budget);
  const auto part = [](const String& string) {
    return string.is_markup ? string.text : escape_html(string.text);
  };
  Value joined = make_string(part(left) + part(right), budget);
  joined.as<String>().is_markup = true;
  return joined;
}

bool are_sequences(const Value& left, const Value& right) {
  return (left.is(Kind::kList) && right.is(Kind::kList)) ||
         (left.is(Kind::kTuple) && right.is(Kind::kTuple));
}

Value add(const Value& left, const Value& right, Budget& budget) {
  if (left.is_string() && right.is_string())
    return join_strings(left.as<String>(), right.as<String>(), budget);
  if (are_sequences(left, right)) {
    Values items = left.as<Sequence>().items;
    const Values& more = right.as<Sequence>().items;
    budget.step(items.size() + more.size());
    items.insert(items.end(), more.begin(), more.end());
    return left.is(Kind::kList) ? make_list(std::move(items), budget)
                                : make_tuple(std::move(items), budget);
  }
  if (left.is_string()) fail("can only concatenate str (not \"", type_name(right), "\") to str");
  if (left.is(Kind::kList) || left.is(Kind::kTuple))
    fail("can only concatenate ", type_name(left), " (not \"", type_name(right), "\") to ",
         type_name(left));
  fail_operands(Operator::kAdd, left, right);
}

// A string, list or tuple, `count` times; the size is charged before it is made.
Value repeat(const Value& value, int64_t count, Budget& budget) {
  const auto times = static_cast<uint64_t>(std::max<int64_t>(count, 0));
  const uint64_t size =
      value.is_string() ? value.text().size() : value.as<Sequence>().items.size() * sizeof(Value);
  if (size != 0 && times > (uint64_t{1} << 40) / size)
    fail("the template needs too much memory: it was stopped");
  budget.allocate(size * times);
  if (value.is_string()) {
    std::string text;
    text.reserve(size * times);
    for (uint64_t i = 0; size > 0 && i < times; ++i) text += value.text();
    return text_value(std::move(text));
  }
  Values items;
  const Values& one = value.as<Sequence>().items;
  for (uint64_t i = 0; !one.empty() && i < times; ++i)
    items.insert(items.end(), one.begin(), one.end());
  return value.is(Kind::kList) ? make_list(std::move(items), budget)
                               : make_tuple(std::move(items), budget);
}

bool can_repeat(const Value& value) {
  return value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple);
}

bool equal_items(const Values& left, const Values& right, Budget& budget) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i)
    if (!equal(left[i], right[i], budget)) return false;
  return true;
}

bool equal_dicts(const Dict& left, const Dict& right, Budget& budget) {
  if (left.items.size() != right.items.size()) return false;
  for (const auto& [key, value] : left.items) {
    const Value* other = right.find(key);
    if (other == nullptr || !equal(value, *other, budget)) return false;
  }
  return true;
}

[[noreturn]] void fail_order(const char* symbol, const Value& left, const Value& right) {
  fail("'", symbol, "' not supported between instances of '", type_name(left), "' and '",
       type_name(right), "'");
}

// less, or less or equal; `symbol` is for the error.
bool ordered(const Value& left, const Value& right, bool or_equal, const char* symbol,
             Budget& budget) {
  const Budget::Level level(budget);
  budget.step();
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_integral() && right.is_integral())
    return or_equal ? left.as_int() <= right.as_int() : left.as_int() < right.as_int();
  if (left.is_number() && right.is_number())
    return or_equal ? left.to_double() <= right.to_double() : left.to_double() < right.to_double();
  if (left.is_string() && right.is_string()) {
    budget.read(std::min(left.text().size(), right.text().size()));
    return or_equal ? left.text() <= right.text() : left.text() < right.text();
  }
  if (!are_sequences(left, right)) fail_order(symbol, left, right);
  const Values& one = left.as<Sequence>().items;
  const Values& other = right.as<Sequence>().items;
  for (size_t i = 0; i < std::min(one.size(), other.size()); ++i)
    if (!equal(one[i], other[i], budget))
      return ordered(one[i], other[i], or_equal, symbol, budget);
  return or_equal ? one.size() <= other.size() : one.size() < other.size();
}

}  // namespace

void fail_undefined(const Value& value) {
  fail(value.as<Undefined>().message);
}

Value compute(Operator op, const Value& left, const Value& right, Budget& budget) {
  if (op == Operator::kMod && left.is_string()) {
    if (left.as<String>().is_markup) fail("% of escaped text is not supported");
    return make_string(format_percent(left.text(), right, budget), budget);
  }
  if (op == Operator::kAdd && left.is_string() && !right.is_string() && !right.is_undefined())
    return add(left, right, budget);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_integral() && right.is_integral())
    return compute_integers(op, left.as_int(), right.as_int());
  if (left.is_number() && right.is_number())
    return compute_floats(op, left.to_double(), right.to_double());
  if (op == Operator::kAdd) return add(left, right, budget);
  if (op == Operator::kMul) {
    if (can_repeat(left) && right.is_integral()) return repeat(left, right.as_int(), budget);
    if (can_repeat(right) && left.is_integral()) return repeat(right, left.as_int(), budget);
    if (can_repeat(left) || can_repeat(right))
      fail("can't multiply sequence by non-int of type '",
           type_name(can_repeat(left) ? right : left), "'");
  }
  fail_operands(op, left, right);
}

Value negated(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return compute_integers(Operator::kSub, 0, value.as_int());
  if (value.is_float()) return -value.as_float();
  fail("bad operand type for unary -: '", type_name(value), "'");
}

Value positive(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return value.as_int();
  if (value.is_float()) return value;
  fail("bad operand type for unary +: '", type_name(value), "'");
}

bool equal(const Value& left, const Value& right, Budget& budget) {
  const Budget::Level level(budget);
  budget.step();
  if (left.is_none() || right.is_none()) return left.is_none() && right.is_none();
  if (left.is_integral() && right.is_integral()) return left.as_int() == right.as_int();
  if (left.is_number() && right.is_number()) return left.to_double() == right.to_double();
  if (!left.is_object() || !right.is_object()) return false;
  if (left.identity() == right.identity()) return true;
  if (left.object().kind != right.object().kind) return false;
  switch (left.object().kind) {
    case Kind::kUndefined:
      return true;
    case Kind::kString:
      budget.read(left.text().size());
      return left.text() == right.text();
    case Kind::kList:
    case Kind::kTuple:
      return equal_items(left.as<Sequence>().items, right.as<Sequence>().items, budget);
    case Kind::kDict:
      return equal_dicts(left.as<Dict>(), right.as<Dict>(), budget);
    case Kind::kRange:
      return equal_items(list_of(left, budget), list_of(right, budget), budget);
    default:
      return false;
  }
}

bool less(const Value& left, const Value& right, Budget& budget) {
  return ordered(left, right, false, "<", budget);
}

bool compare(Comparison comparison, const Value& left, const Value& right, Budget& budget) {
  switch (comparison) {
    case Comparison::kEqual:
      return equal(left, right, budget);
    case Comparison::kNotEqual:
      return !equal(left, right, budget);
    case Comparison::kLess:
      return ordered(left, right, false, "<", budget);
    case Comparison::kLessEqual:
      return ordered(left, right, true, "<=", budget);
    case Comparison::kGreater:
    case Comparison::kGreaterEqual: {
      const bool or_equal = comparison == Comparison::kGreaterEqual;
      try {
        return ordered(right, left, or_equal, or_equal ? ">=" : ">", budget);
      } catch (const Failure& failure) {
        // Python names the operands in the order of the text.
        const char* symbol = or_equal ? ">=" : ">";
        if (failure.reason.starts_with("'" + std::string(symbol) + "' not supported") &&
            !are_sequences(left, right))
          fail_order(symbol, left, right);
        throw;
      }
    }
    case Comparison::kIn:
      return contains(right, left, budget);
    case Comparison::kNotIn:
      return !contains(right, left, budget);
  }
  return false;
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  budget.step();
  if (container.is_string()) {
    if (!item.is_string())
      fail("'in <string>' requires string as left operand, not ", type_name(item));
    budget.read(container.text().size());
    return find_text(container.text(), item.text()) != std::string::npos;
  }
  if (container.is(Kind::kDict)) return container.as<Dict>().find(item) != nullptr;
  if (!is_iterable(container))
    fail("argument of type '", type_name(container), "' is not iterable");
  bool found = false;
  iterate(container, budget, [&](const Value& value) {
    found = equal(value, item, budget);
    return !found;
  });
  return found;
}

bool is_true(const Value& value) {
  if (value.is_none()) return false;
  if (value.is_integral()) return value.as_int() != 0;
  if (value.is_float()) return value.as_float() != 0;
  return length_of(value).value_or(1) != 0;
}

int64_t integer_of(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_integral())
    fail("'", type_name(value), "' object cannot be interpreted as an integer");
  return value.as_int();
}

const std::string& string_of(const Value& value, const char* what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) fail(what, " must be str, not ", type_name(value));
  return value.text();
}

}  // namespace moetron::jinja
