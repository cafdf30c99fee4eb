// map, select, reject, selectattr and rejectattr.
#include <functional>

#include "moetron/chat/jinja/attribute_path.h"
#include "moetron/chat/jinja/filters.h"
#include "moetron/chat/jinja/operators.h"

namespace moetron::jinja {
namespace {

// The arguments behind the first `count`.
Arguments without_first(const Arguments& arguments, size_t count) {
  Arguments rest;
  rest.positional.assign(arguments.positional.begin() + static_cast<std::ptrdiff_t>(count),
                         arguments.positional.end());
  rest.named = arguments.named;
  return rest;
}

Value map_values(const Value& value, const Arguments& arguments, Budget& budget) {
  std::function<Value(const Value&)> change;
  const Value* attribute = arguments.find("attribute");
  if (arguments.positional.empty() && attribute != nullptr) {
    for (const auto& [name, unused] : arguments.named)
      if (name != "attribute" && name != "default")
        fail("Unexpected keyword argument '", name, "'");
    const Value* otherwise = arguments.find("default");
    change = [&budget, path = AttributePath(*attribute),
              fallback = otherwise != nullptr ? *otherwise : Value()](const Value& item) {
      return path.get(item, budget, fallback);
    };
  } else {
    if (arguments.positional.empty()) fail("map requires a filter argument");
    const std::string filter = string_of(arguments.positional[0], "a filter's name");
    change = [&budget, filter, rest = without_first(arguments, 1)](const Value& item) {
      return apply_filter(filter, item, rest, budget);
    };
  }
  Values values;
  iterate(value, budget, [&](const Value& item) {
    budget.allocate(sizeof(Value));
    values.push_back(change(item));
    return true;
  });
  return make_iterator(std::move(values));
}

Value select_values(const std::string& name, const Value& value, const Arguments& arguments,
                    Budget& budget) {
  const bool by_attribute = name.ends_with("attr");
  const bool keeps = name.starts_with("select");
  if (by_attribute && arguments.positional.empty()) fail("Missing parameter for attribute name");
  const AttributePath path =
      by_attribute ? AttributePath(arguments.positional[0]) : AttributePath();
  const size_t place = by_attribute ? 1 : 0;
  const bool has_test = arguments.positional.size() > place;
  const Arguments rest = without_first(arguments, has_test ? place + 1 : place);
  Values values;
  iterate(value, budget, [&](const Value& item) {
    const Value looked_at = path.get(item, budget);
    const bool holds = has_test
                           ? apply_test(string_of(arguments.positional[place], "a test's name"),
                                        looked_at, rest, budget)
                           : is_true(looked_at);
    budget.allocate(sizeof(Value));
    if (holds == keeps) values.push_back(item);
    return true;
  });
  return make_iterator(std::move(values));
}

}  // namespace

Value filter_selection(const std::string& name, const Value& value, const Arguments& arguments,
                       Budget& budget) {
  if (!is_true(value)) return make_iterator({});
  return name == "map" ? map_values(value, arguments, budget)
                       : select_values(name, value, arguments, budget);
}

}  // namespace moetron::jinja
