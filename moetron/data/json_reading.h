// JSON as Python's json reads it (simdjson underneath): where numbers are not what JSON allows or
// what a double or 64 bits hold, the text is read again without them.
#pragma once

#include <string>
#include <string_view>

#include <simdjson.h>

namespace moetron {

// What was parsed last; reuses its memory.
class JsonReading {
 public:
  // What is wrong with the text, or "". NaN, Infinity, -Infinity, numbers beyond doubles and long
  // integers are taken, with the value 0: documents are made of strings.
  std::string parse(std::string_view text);
  simdjson::dom::element root() const { return root_; }

 private:
  simdjson::dom::parser parser_;
  simdjson::dom::element root_;
};

// The value under `key`, of a key that comes twice the last, as in Python; an error where absent.
simdjson::simdjson_result<simdjson::dom::element> last_value(simdjson::dom::object object,
                                                             std::string_view key);

}  // namespace moetron
