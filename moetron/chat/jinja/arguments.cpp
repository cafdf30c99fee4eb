#include "moetron/chat/jinja/arguments.h"

#include <algorithm>

#include "moetron/chat/jinja/operators.h"

namespace moetron::jinja {

const Value* Arguments::find(const std::string& name) const {
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

Bound::Bound(const Arguments& arguments, const std::string& function,
             const std::vector<std::string>& parameters, size_t required)
    : values_(parameters.size()) {
  if (arguments.positional.size() > parameters.size())
    fail(function, "() takes at most ", std::to_string(parameters.size()), " arguments (",
         std::to_string(arguments.positional.size()), " given)");
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    const auto place = std::find(parameters.begin(), parameters.end(), name);
    if (place == parameters.end())
      fail(function, "() got an unexpected keyword argument '", name, "'");
    std::optional<Value>& slot = values_[static_cast<size_t>(place - parameters.begin())];
    if (slot) fail(function, "() got multiple values for argument '", name, "'");
    slot = value;
  }
  for (size_t i = 0; i < required; ++i)
    if (!values_[i]) fail(function, "() missing required argument: '", parameters[i], "'");
}

bool Bound::flag(size_t index, bool otherwise) const {
  return has(index) ? is_true((*this)[index]) : otherwise;
}

}  // namespace moetron::jinja
