// Typed, bounded reading of the keys of one JSON object. Every error is an InputError of one
// sentence: file, key, value, and what it should be. null is a value of the wrong type, but for the
// keys that the reader says may be null: there it reads as absent.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "moetron/base/json.h"

namespace moetron {

class JsonFields {
 public:
  // `place` opens every message: "model/config.json" or "model/config.json: rope_scaling".
  JsonFields(const Json& object, std::string place);

  const std::string& place() const { return place_; }
  // The keys whose null reads as absent from here on.
  void set_nullable(std::vector<std::string_view> keys) { nullable_ = std::move(keys); }
  // Present, and not null.
  bool has(std::string_view key) const { return find(key) != nullptr && !is_null(key); }
  // True for a key that is present with the value null.
  bool is_null(std::string_view key) const;
  bool is_empty() const;
  // The first key whose value is an object itself.
  std::optional<std::string> nested_key() const;

  int64_t required_integer(std::string_view key, int64_t low, int64_t high) const;
  std::optional<int64_t> integer(std::string_view key, int64_t low, int64_t high) const;
  std::optional<double> number(std::string_view key, double low, double high) const;
  double required_number(std::string_view key, double low, double high) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string> text(std::string_view key) const;
  std::optional<std::vector<int64_t>> integers(std::string_view key, int64_t low,
                                               int64_t high) const;
  std::optional<std::vector<std::string>> texts(std::string_view key) const;
  std::optional<JsonFields> object(std::string_view key) const;

  // Throws "PLACE: KEY (VALUE) EXPECTATION".
  [[noreturn]] void refuse(std::string_view key, const std::string& expectation) const;

 private:
  const Json* find(std::string_view key) const;  // nullptr if absent, or null where that may be
  int64_t checked_integer(const Json& value, std::string_view key, int64_t low, int64_t high) const;

  const Json* object_;
  std::string place_;
  std::vector<std::string_view> nullable_;
};

}  // namespace moetron
