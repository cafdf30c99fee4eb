// The values that templates compute with: Python's, as far as templates see them. Texts are UTF-8,
// integers have 64 bits (beyond them is refused), containers do not change once they are made.
#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "moetron/base/json.h"
#include "moetron/chat/jinja/budget.h"

namespace moetron::jinja {

class Value;
using Values = std::vector<Value>;

enum class Kind {
  kUndefined,
  kString,
  kList,
  kTuple,
  kDict,
  kRange,
  kIterator,
  kView,
  kNamespace,
  kLoop,
  kMacro,
  kFunction,
  kMethod,
  kCycler,
  kJoiner,
};

struct Object {
  explicit Object(Kind of) : kind(of) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const Kind kind;
  int depth = 0;  // containers in containers: bounded, for they are taken apart recursively
  bool holds_namespace = false;  // or is one
};

struct None {
  bool operator==(const None&) const = default;
};

class Value {
 public:
  Value() = default;  // None
  Value(bool value) : value_(value) {}
  Value(int64_t value) : value_(value) {}
  Value(int value) : value_(int64_t{value}) {}
  Value(double value) : value_(value) {}
  template <std::derived_from<Object> T>
  Value(std::shared_ptr<T> object) : value_(std::shared_ptr<Object>(std::move(object))) {}
  Value(const char*) = delete;

  bool is_none() const { return std::holds_alternative<None>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_int() const { return std::holds_alternative<int64_t>(value_); }
  bool is_float() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  bool is_object() const { return std::holds_alternative<std::shared_ptr<Object>>(value_); }
  bool is(Kind kind) const { return is_object() && object().kind == kind; }
  bool is_undefined() const { return is(Kind::kUndefined); }
  bool is_string() const { return is(Kind::kString); }

  bool as_bool() const { return std::get<bool>(value_); }
  double as_float() const { return std::get<double>(value_); }
  // Of a bool or an integer.
  int64_t as_int() const { return is_bool() ? int64_t{as_bool()} : std::get<int64_t>(value_); }
  double to_double() const { return is_float() ? as_float() : static_cast<double>(as_int()); }
  bool is_integral() const { return is_bool() || is_int(); }

  Object& object() const { return *std::get<std::shared_ptr<Object>>(value_); }
  template <class T>
  T& as() const {
    return static_cast<T&>(object());
  }
  const std::string& text() const;  // of a string
  const void* identity() const;     // of an object, else null

 private:
  std::variant<None, bool, int64_t, double, std::shared_ptr<Object>> value_;
};

struct String : Object {
  explicit String(std::string of) : Object(Kind::kString), text(std::move(of)) {}
  std::string text;
  bool is_markup = false;  // of the filter e: adding to it escapes
};

// What is not there: prints as nothing, and fails with `message` where something is done with it.
struct Undefined : Object {
  explicit Undefined(std::string of) : Object(Kind::kUndefined), message(std::move(of)) {}
  std::string message;
};

struct Sequence : Object {
  Sequence(Kind of, Values values);
  Values items;
};

// Keys keep their order; 1, 1.0 and true are one key, as in Python.
struct Dict : Object {
  Dict() : Object(Kind::kDict) {}
  explicit Dict(Kind of) : Object(of) {}
  void set(const Value& key, Value value);
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;

  std::vector<std::pair<Value, Value>> items;

 private:
  std::unordered_map<std::string, size_t> places_;
};

struct Namespace : Dict {
  Namespace() : Dict(Kind::kNamespace) { holds_namespace = true; }
};

struct Range : Object {
  Range(int64_t from, int64_t to, int64_t by)
      : Object(Kind::kRange), start(from), stop(to), step(by) {}
  int64_t size() const;
  int64_t start;
  int64_t stop;
  int64_t step;
};

// Gives its values once.
struct Iterator : Object {
  explicit Iterator(const char* of) : Object(Kind::kIterator), type(of) {}
  virtual bool next(Value& value_out) = 0;
  const char* type;  // "generator"
};

struct ValuesIterator : Iterator {
  ValuesIterator(Values values, const char* of);
  bool next(Value& value_out) override;
  Values items;
  size_t place = 0;
};

enum class ViewKind { kKeys, kValues, kItems };

struct View : Object {
  View(Value of, ViewKind what) : Object(Kind::kView), dict(std::move(of)), view(what) {
    depth = dict.object().depth;
    holds_namespace = dict.object().holds_namespace;
  }
  Value dict;
  ViewKind view;
};

// A method of a value, not yet called.
struct Method : Object {
  Method(Value of, std::string called);
  Value self;
  std::string name;
};

// A global function.
struct Function : Object {
  explicit Function(std::string called) : Object(Kind::kFunction), name(std::move(called)) {}
  std::string name;
};

struct Cycler : Object {
  explicit Cycler(Values values) : Object(Kind::kCycler), items(std::move(values)) {}
  Values items;
  size_t place = 0;
};

struct Joiner : Object {
  explicit Joiner(std::string text) : Object(Kind::kJoiner), separator(std::move(text)) {}
  std::string separator;
  bool was_used = false;
};

Value make_string(std::string text, Budget& budget);
Value make_undefined(std::string message);
Value make_list(Values items, Budget& budget);
Value make_tuple(Values items, Budget& budget);
Value make_iterator(Values items, const char* type = "generator");
// A text that is in the template or a message already.
Value text_value(std::string text);

// Fails for integers beyond 64 bits.
Value from_json(const Json& json, Budget& budget);

// Python's name of the type: "str", "NoneType".
std::string type_name(const Value& value);
// The text by which a dictionary finds a key; fails for what cannot be one, naming the type.
std::string key_of(const Value& value);

}  // namespace moetron::jinja
