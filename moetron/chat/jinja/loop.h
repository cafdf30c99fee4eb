// The variable `loop` of a for loop.
#pragma once

#include <optional>
#include <string>

#include "moetron/chat/jinja/arguments.h"
#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

struct Scope;
struct Statement;

struct Loop : Object {
  // `length`: of what is gone through, where that is known without going through it.
  Loop(Value values, std::optional<int64_t> known_length, int64_t level)
      : Object(Kind::kLoop), iterator(std::move(values)), length(known_length), depth0(level) {}

  // The next value; false where there is none.
  bool advance(Value& value_out);
  // Nothing where there is no such attribute.
  std::optional<Value> attribute(const std::string& name, Budget& budget);
  Value call(const std::string& method, const Arguments& arguments,
             Budget& budget);  // cycle, changed

  Value iterator;
  std::optional<int64_t> length;
  int64_t depth0;
  int64_t index0 = -1;
  std::optional<Value> after;  // that was looked at and is not given yet
  Value current;
  Value before;
  std::optional<Value> last_changed;
  const Statement* recursive = nullptr;  // the for loop that this one may call
  std::weak_ptr<Scope> scope;            // in which it stands

 private:
  bool peek();
  int64_t find_length(Budget& budget);
};

}  // namespace moetron::jinja
