// Values as text: Python's str() and repr(), and json.dumps as transformers' filter tojson calls
// it.
#pragma once

#include <optional>
#include <string>

#include "moetron/chat/jinja/value.h"

namespace moetron::jinja {

std::string to_text(const Value& value, Budget& budget);
std::string representation(const Value& value, Budget& budget);
std::string float_text(double value);  // repr of a float

struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // of one level
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

// Fails for what json.dumps cannot write, naming the type.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace moetron::jinja
