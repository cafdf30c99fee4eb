// Values of a large JSON file (simdjson underneath: a vocabulary of megabytes in milliseconds),
// with errors that name the file and the place in it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

#include "moetron/base/error.h"

namespace moetron {

// One value and where it stands: "tokenizer.json: model.merges". Throws InputError wherever the
// value is not what is asked for.
class JsonReader {
 public:
  JsonReader(simdjson::dom::element value, std::string place)
      : value_(value), place_(std::move(place)) {}

  template <class... Args>
  void require(bool condition, const Args&... message) const {
    MT_CHECK_INPUT(condition, place_, " ", message...);
  }

  std::string_view string() const;
  int64_t integer(int64_t limit) const;  // 0 <= value < limit
  double number() const;
  simdjson::dom::array array() const;
  simdjson::dom::object object() const;

  JsonReader at(std::string_view key) const;                   // must be there
  std::optional<JsonReader> find(std::string_view key) const;  // nothing if absent or null
  bool flag(std::string_view key,
            bool otherwise) const;  // a boolean, `otherwise` if absent or null
  std::string_view type() const { return at("type").string(); }
  std::vector<JsonReader> members() const;  // of an array, each under its number from 0

  const std::string& place() const { return place_; }

 private:
  // A value within this array or object.
  JsonReader inside(simdjson::dom::element value, std::string_view key) const;

  simdjson::dom::element value_;
  std::string place_;
};

}  // namespace moetron
