// JSON in the spelling of Python's json.dumps(ensure_ascii=False): what models saw in training.
#pragma once

#include <string>

#include "moetron/base/json.h"

namespace moetron {

// {"a": [1, 2.0]}. InputError for integers beyond 64 bits.
std::string python_json(const Json& value);

}  // namespace moetron
