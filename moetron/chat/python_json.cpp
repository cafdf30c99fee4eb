#include "moetron/chat/python_json.h"

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/chat/jinja/format.h"

namespace moetron {

std::string python_json(const Json& value) {
  jinja::Budget budget(value.dump().size());
  try {
    return jinja::to_json(jinja::from_json(value, budget), {}, budget);
  } catch (const jinja::Failure& failure) {
    throw InputError(failure.reason);
  }
}

}  // namespace moetron
