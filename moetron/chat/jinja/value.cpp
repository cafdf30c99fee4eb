#include "moetron/chat/jinja/value.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

namespace moetron::jinja {
namespace {

constexpr int kMaxDepth = 120;

// A container of `child` is one level deeper.
void deepen(Object& object, const Value& child) {
  if (!child.is_object()) return;
  object.depth = std::max(object.depth, child.object().depth + 1);
  object.holds_namespace |= child.object().holds_namespace;
  if (object.depth > kMaxDepth) fail("values are nested too deeply");
}

}  // namespace

const std::string& Value::text() const {
  return as<String>().text;
}

const void* Value::identity() const {
  return is_object() ? &object() : nullptr;
}

Sequence::Sequence(Kind of, Values values) : Object(of), items(std::move(values)) {
  for (const Value& item : items) deepen(*this, item);
}

void Dict::set(const Value& key, Value value) {
  deepen(*this, value);
  const auto [place, is_new] = places_.emplace(key_of(key), items.size());
  if (is_new) {
    items.emplace_back(key, std::move(value));
  } else {
    items[place->second].second = std::move(value);
  }
}

const Value* Dict::find(const Value& key) const {
  const auto place = places_.find(key_of(key));
  return place == places_.end() ? nullptr : &items[place->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto place = places_.find("s" + std::string(key));
  return place == places_.end() ? nullptr : &items[place->second].second;
}

int64_t Range::size() const {
  if (step > 0) return start < stop ? (stop - start - 1) / step + 1 : 0;
  return start > stop ? (start - stop - 1) / -step + 1 : 0;
}

ValuesIterator::ValuesIterator(Values values, const char* of)
    : Iterator(of), items(std::move(values)) {
  for (const Value& item : items) deepen(*this, item);
}

bool ValuesIterator::next(Value& value_out) {
  if (place == items.size()) return false;
  value_out = items[place++];
  return true;
}

Method::Method(Value of, std::string called)
    : Object(Kind::kMethod), self(std::move(of)), name(std::move(called)) {
  deepen(*this, self);
}

Value text_value(std::string text) {
  return std::make_shared<String>(std::move(text));
}

Value make_string(std::string text, Budget& budget) {
  budget.allocate(text.size() + sizeof(String));
  return text_value(std::move(text));
}

Value make_undefined(std::string message) {
  return std::make_shared<Undefined>(std::move(message));
}

Value make_list(Values items, Budget& budget) {
  budget.allocate(items.size() * sizeof(Value) + sizeof(Sequence));
  return std::make_shared<Sequence>(Kind::kList, std::move(items));
}

Value make_tuple(Values items, Budget& budget) {
  budget.allocate(items.size() * sizeof(Value) + sizeof(Sequence));
  return std::make_shared<Sequence>(Kind::kTuple, std::move(items));
}

Value make_iterator(Values items, const char* type) {
  return std::make_shared<ValuesIterator>(std::move(items), type);
}

Value from_json(const Json& json, Budget& budget) {
  switch (json.type()) {
    case Json::value_t::null:
      return {};
    case Json::value_t::boolean:
      return json.get<bool>();
    case Json::value_t::number_integer:
      return json.get<int64_t>();
    case Json::value_t::number_unsigned: {
      const auto value = json.get<uint64_t>();
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
        fail("an integer of the conversation has more than 64 bits");
      return static_cast<int64_t>(value);
    }
    case Json::value_t::number_float:
      return json.get<double>();
    case Json::value_t::string:
      return make_string(json.get<std::string>(), budget);
    case Json::value_t::array: {
      Values items;
      items.reserve(json.size());
      for (const Json& item : json) items.push_back(from_json(item, budget));
      return make_list(std::move(items), budget);
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      budget.allocate(json.size() * 4 * sizeof(Value) + sizeof(Dict));
      for (const auto& [key, value] : json.items())
        dict->set(text_value(key), from_json(value, budget));
      return dict;
    }
    default:
      fail("a value of the conversation is no JSON");
  }
}

std::string type_name(const Value& value) {
  if (value.is_none()) return "NoneType";
  if (value.is_bool()) return "bool";
  if (value.is_int()) return "int";
  if (value.is_float()) return "float";
  switch (value.object().kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kString:
      return value.as<String>().is_markup ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return value.as<Iterator>().type;
    case Kind::kView:
      switch (value.as<View>().view) {
        case ViewKind::kKeys:
          return "dict_keys";
        case ViewKind::kValues:
          return "dict_values";
        case ViewKind::kItems:
          return "dict_items";
      }
      break;
    case Kind::kNamespace:
      return "TemplateNamespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "builtin_function_or_method";
    case Kind::kCycler:
      return "Cycler";
    case Kind::kJoiner:
      return "Joiner";
  }
  return "object";
}

std::string key_of(const Value& value) {
  if (value.is_none()) return "n";
  if (value.is_integral()) return "i" + std::to_string(value.as_int());
  if (value.is_float()) {
    const double number = value.as_float();
    if (std::trunc(number) == number && std::fabs(number) < 9e18)
      return "i" + std::to_string(static_cast<int64_t>(number));
    return "f" + std::string(reinterpret_cast<const char*>(&number), sizeof number);
  }
  switch (value.object().kind) {
    case Kind::kString:
      return "s" + value.text();
    case Kind::kTuple: {
      std::string key = "t";
      for (const Value& item : value.as<Sequence>().items) {
        const std::string part = key_of(item);
        key += std::to_string(part.size()) + ":" + part;
      }
      return key;
    }
    case Kind::kUndefined:
      return "u";
    case Kind::kList:
    case Kind::kDict:
      fail("unhashable type: '", type_name(value), "'");
    default:
      return "o" + std::to_string(reinterpret_cast<uintptr_t>(value.identity()));
  }
}

}  // namespace moetron::jinja
