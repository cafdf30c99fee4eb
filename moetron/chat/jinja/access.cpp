// Lengths, iteration, attributes and items of values.
#include <algorithm>
#include <array>

#include "moetron/chat/jinja/format.h"
#include "moetron/chat/jinja/loop.h"
#include "moetron/chat/jinja/methods.h"
#include "moetron/chat/jinja/operators.h"
#include "moetron/chat/jinja/text.h"

namespace moetron::jinja {
namespace {

Value view_item(const View& view, size_t place, Budget& budget) {
  const auto& [key, value] = view.dict.as<Dict>().items[place];
  if (view.view == ViewKind::kKeys) return key;
  if (view.view == ViewKind::kValues) return value;
  return make_tuple({key, value}, budget);
}

// An iterator over what has a length.
struct PlacesIterator : Iterator {
  PlacesIterator(Value of, Budget& spend)
      : Iterator("iterator"), values(std::move(of)), budget(spend) {
    depth = values.object().depth + 1;
    holds_namespace = values.object().holds_namespace;
    if (values.is_string()) characters = split_characters(values.text());
  }
  bool next(Value& value_out) override {
    budget.step();
    if (place >= static_cast<size_t>(*length_of(values)) && !values.is_string()) return false;
    switch (values.object().kind) {
      case Kind::kString:
        if (place >= characters.size()) return false;
        value_out = make_string(std::string(characters[place]), budget);
        break;
      case Kind::kList:
      case Kind::kTuple:
        value_out = values.as<Sequence>().items[place];
        break;
      case Kind::kDict:
        value_out = values.as<Dict>().items[place].first;
        break;
      case Kind::kView:
        value_out = view_item(values.as<View>(), place, budget);
        break;
      case Kind::kRange: {
        const Range& range = values.as<Range>();
        value_out = range.start + static_cast<int64_t>(place) * range.step;
        break;
      }
      default:
        return false;
    }
    ++place;
    return true;
  }
  Value values;
  Budget& budget;
  std::vector<std::string_view> characters;
  size_t place = 0;
};

// What errors call an object: "dict object".
std::string described(const Value& value) {
  if (value.is_none()) return "None";
  if (value.is(Kind::kNamespace))
    return "transformers.utils.chat_template_utils.TemplateNamespace object";
  if (value.is(Kind::kLoop)) return "jinja2.runtime.LoopContext object";
  if (value.is(Kind::kMacro)) return "jinja2.runtime.Macro object";
  return type_name(value) + " object";
}

Value missing_attribute(const Value& value, const std::string& name) {
  return make_undefined(quote_text(described(value)) + " has no attribute " + quote_text(name));
}

Value missing_item(const Value& value, const Value& key, Budget& budget) {
  if (key.is_string()) return missing_attribute(value, key.text());
  return make_undefined(described(value) + " has no element " + representation(key, budget));
}

// A method or attribute by its name alone; nothing where the type has none.
std::optional<Value> attribute_of(const Value& value, const std::string& name, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (name.starts_with("__") && name.ends_with("__"))
    return make_undefined("access to attribute " + quote_text(name) + " of " +
                          quote_text(type_name(value)) + " object is unsafe.");
  if (value.is(Kind::kLoop)) {
    if (std::optional<Value> found = value.as<Loop>().attribute(name, budget)) return found;
  }
  if (value.is(Kind::kNamespace)) {
    const Value* found = value.as<Dict>().find(name);
    return found != nullptr ? std::optional(*found) : std::nullopt;
  }
  switch (method_standing(value, name)) {
    case MethodStanding::kNone:
      return std::nullopt;
    case MethodStanding::kUnsafe:
      return make_undefined("access to attribute " + quote_text(name) + " of " +
                            quote_text(type_name(value)) + " object is unsafe.");
    case MethodStanding::kThere:
      return std::make_shared<Method>(value, name);
  }
  return std::nullopt;
}

// value[key] where that is possible.
std::optional<Value> item_of(const Value& value, const Value& key, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::kDict)) {
    try {
      const Value* found = value.as<Dict>().find(key);
      return found != nullptr ? std::optional(*found) : std::nullopt;
    } catch (const Failure&) {  // not a key
      return std::nullopt;
    }
  }
  const bool has_places = value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple) ||
                          value.is(Kind::kRange);
  if (!has_places || !key.is_integral()) return std::nullopt;
  const int64_t length = *length_of(value);
  const int64_t place = key.as_int() < 0 ? key.as_int() + length : key.as_int();
  if (place < 0 || place >= length) return std::nullopt;
  if (value.is(Kind::kRange)) return value.as<Range>().start + place * value.as<Range>().step;
  if (!value.is_string()) return value.as<Sequence>().items[static_cast<size_t>(place)];
  budget.read(value.text().size());
  const size_t begin = byte_of_character(value.text(), place);
  const size_t end = begin + byte_of_character(std::string_view(value.text()).substr(begin), 1);
  return make_string(value.text().substr(begin, end - begin), budget);
}

// An end of a slice as a place in [low, high].
int64_t slice_end(const Value& end, int64_t otherwise, int64_t length, int64_t low, int64_t high) {
  if (end.is_none()) return otherwise;
  if (end.is_undefined() || !end.is_integral())
    fail("slice indices must be integers or None or have an __index__ method");
  int64_t place = end.as_int();
  if (place < 0) place = std::max(place, -length - 1) + length;
  return std::clamp(place, low, high);
}

}  // namespace

std::optional<int64_t> length_of(const Value& value) {
  if (!value.is_object()) return std::nullopt;
  switch (value.object().kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return count_characters(value.text());
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.as<Sequence>().items.size());
    case Kind::kDict:
      return static_cast<int64_t>(value.as<Dict>().items.size());
    case Kind::kView:
      return static_cast<int64_t>(value.as<View>().dict.as<Dict>().items.size());
    case Kind::kRange:
      return value.as<Range>().size();
    default:
      return std::nullopt;
  }
}

bool is_iterable(const Value& value) {
  return value.is_object() && (value.is(Kind::kIterator) || length_of(value).has_value());
}

void iterate(const Value& value, Budget& budget, const std::function<bool(const Value&)>& take) {
  if (value.is_undefined()) return;
  const Value iterator = iterator_of(value, budget);
  Value item;
  while (iterator.as<Iterator>().next(item)) {
    budget.step();
    if (!take(item)) return;
  }
}

Values list_of(const Value& value, Budget& budget) {
  Values items;
  iterate(value, budget, [&](const Value& item) {
    budget.allocate(sizeof(Value));
    items.push_back(item);
    return true;
  });
  return items;
}

Value iterator_of(const Value& value, Budget& budget) {
  if (value.is(Kind::kIterator)) return value;
  if (value.is_undefined()) return make_iterator({});
  if (!is_iterable(value)) fail("'", type_name(value), "' object is not iterable");
  if (value.is_string()) budget.allocate(value.text().size() * sizeof(std::string_view));
  return std::make_shared<PlacesIterator>(value, budget);
}

Value get_attribute(const Value& value, const std::string& name, Budget& budget) {
  budget.step();
  if (std::optional<Value> found = attribute_of(value, name, budget)) return *found;
  if (value.is(Kind::kDict)) {
    const Value* item = value.as<Dict>().find(name);
    if (item != nullptr) return *item;
  }
  return missing_attribute(value, name);
}

Value get_item(const Value& value, const Value& key, Budget& budget) {
  budget.step();
  if (std::optional<Value> found = item_of(value, key, budget)) return *found;
  if (key.is_string()) {
    if (std::optional<Value> found = attribute_of(value, key.text(), budget)) return *found;
  }
  return missing_item(value, key, budget);
}

Value get_slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  const bool sliceable = value.is_string() || value.is(Kind::kList) || value.is(Kind::kTuple) ||
                         value.is(Kind::kRange);
  if (!sliceable) {
    if (value.is(Kind::kDict)) fail("unhashable type: 'slice'");
    fail("'", type_name(value), "' object is not subscriptable");
  }
  if (!step.is_none() && (step.is_undefined() || !step.is_integral()))
    fail("slice indices must be integers or None or have an __index__ method");
  const int64_t by =
      step.is_none() ? 1
                     : std::clamp<int64_t>(step.as_int(), -(int64_t{1} << 40), int64_t{1} << 40);
  if (by == 0) fail("slice step cannot be zero");
  const int64_t length = *length_of(value);
  const int64_t low = by > 0 ? 0 : -1;
  const int64_t high = by > 0 ? length : length - 1;
  const int64_t from = slice_end(start, by > 0 ? low : high, length, low, high);
  const int64_t to = slice_end(stop, by > 0 ? high : low, length, low, high);

  if (value.is_string()) {
    budget.read(value.text().size());
    const std::string& text = value.text();
    if (by == 1) {
      if (from >= to) return make_string({}, budget);
      const size_t begin = byte_of_character(text, from);
      const size_t size = byte_of_character(std::string_view(text).substr(begin), to - from);
      return make_string(text.substr(begin, size), budget);
    }
    budget.allocate(text.size() * sizeof(std::string_view));
    const std::vector<std::string_view> characters = split_characters(text);
    std::string out;
    for (int64_t at = from; by > 0 ? at < to : at > to; at += by)
      out += characters[static_cast<size_t>(at)];
    return make_string(std::move(out), budget);
  }
  if (value.is(Kind::kRange)) {
    const Range& range = value.as<Range>();
    return std::make_shared<Range>(range.start + from * range.step, range.start + to * range.step,
                                   range.step * by);
  }
  Values items;
  const Values& all = value.as<Sequence>().items;
  for (int64_t at = from; by > 0 ? at < to : at > to; at += by)
    items.push_back(all[static_cast<size_t>(at)]);
  return value.is(Kind::kList) ? make_list(std::move(items), budget)
                               : make_tuple(std::move(items), budget);
}

}  // namespace moetron::jinja
