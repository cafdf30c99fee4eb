#include "moetron/chat/jinja/loop.h"

#include "moetron/chat/jinja/operators.h"

namespace moetron::jinja {

bool Loop::advance(Value& value_out) {
  if (after) {
    value_out = std::move(*after);
    after.reset();
  } else if (!iterator.as<Iterator>().next(value_out)) {
    return false;
  }
  ++index0;
  before = current;
  current = value_out;
  return true;
}

bool Loop::peek() {
  if (after) return true;
  Value value;
  if (!iterator.as<Iterator>().next(value)) return false;
  after = value;
  return true;
}

int64_t Loop::find_length(Budget& budget) {
  if (!length) {
    Values rest = list_of(iterator, budget);
    length = static_cast<int64_t>(rest.size()) + index0 + 1 + (after ? 1 : 0);
    iterator = make_iterator(std::move(rest));
  }
  return *length;
}

std::optional<Value> Loop::attribute(const std::string& name, Budget& budget) {
  if (name == "index") return index0 + 1;
  if (name == "index0") return index0;
  if (name == "first") return index0 == 0;
  if (name == "last") return !peek();
  if (name == "length") return find_length(budget);
  if (name == "revindex") return find_length(budget) - index0;
  if (name == "revindex0") return find_length(budget) - index0 - 1;
  if (name == "depth") return depth0 + 1;
  if (name == "depth0") return depth0;
  if (name == "previtem") return index0 == 0 ? make_undefined("there is no previous item") : before;
  if (name == "nextitem") return peek() ? *after : make_undefined("there is no next item");
  return std::nullopt;
}

Value Loop::call(const std::string& method, const Arguments& arguments, Budget& budget) {
  const Values& values = arguments.positional;
  if (!arguments.named.empty()) fail(method, "() got an unexpected keyword argument");
  if (method == "cycle") {
    if (values.empty()) fail("no items for cycling given");
    return values[static_cast<size_t>(index0) % values.size()];
  }
  Value now = make_tuple(values, budget);
  const bool is_new = !last_changed || !equal(*last_changed, now, budget);
  last_changed = std::move(now);
  return is_new;
}

}  // namespace moetron::jinja
