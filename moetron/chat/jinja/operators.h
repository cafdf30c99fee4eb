// What Python's operators and subscriptions do with values, in the words of Python's errors where
// they fail.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

enum class Operator { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class Comparison {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

Value compute(Operator op, const Value& left, const Value& right, Budget& budget);
Value negated(const Value& value);
Value positive(const Value& value);

bool equal(const Value& left, const Value& right, Budget& budget);
bool less(const Value& left, const Value& right, Budget& budget);
bool compare(Comparison comparison, const Value& left, const Value& right, Budget& budget);
bool contains(const Value& container, const Value& item, Budget& budget);
bool is_true(const Value& value);

// Nothing where Python's len() would fail.
std::optional<int64_t> length_of(const Value& value);
bool is_iterable(const Value& value);
// The values one after the other; of an iterator those that are left, which are then taken from it.
// `take` returns false to stop.
void iterate(const Value& value, Budget& budget, const std::function<bool(const Value&)>& take);
Values list_of(const Value& value, Budget& budget);
// The same as an iterator: `value` itself if it is one.
Value iterator_of(const Value& value, Budget& budget);

// value.name, and value[key] where there is no such attribute; undefined where there is neither.
Value get_attribute(const Value& value, const std::string& name, Budget& budget);
// value[key], and the attribute of this name where there is no such item.
Value get_item(const Value& value, const Value& key, Budget& budget);
Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                Budget& budget);

// An integer argument; fails in Python's words.
int64_t integer_of(const Value& value);
// `value`'s text, or fails: "expected a str, not int".
const std::string& string_of(const Value& value, const char* what);
[[noreturn]] void fail_undefined(const Value& value);

}  // namespace moetron::jinja
