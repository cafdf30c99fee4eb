// Arguments of a call, and Python's rules for which parameter gets which.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> named;

  const Value* find(const std::string& name) const;
};

// The values of named parameters in order; what is not given is absent. Fails in Python's words
// where there are too many, one is unknown or comes twice, or one of the first `required` is
// missing.
class Bound {
 public:
  Bound(const Arguments& arguments, const std::string& function,
        const std::vector<std::string>& parameters, size_t required);

  bool has(size_t index) const { return values_[index].has_value(); }
  const Value& operator[](size_t index) const { return *values_[index]; }
  Value get(size_t index, const Value& otherwise) const {
    return has(index) ? *values_[index] : otherwise;
  }
  bool flag(size_t index, bool otherwise) const;  // its truth

 private:
  std::vector<std::optional<Value>> values_;
};

}  // namespace moetron::jinja
