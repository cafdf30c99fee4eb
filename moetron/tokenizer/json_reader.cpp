#include "moetron/tokenizer/json_reader.h"

namespace moetron {

std::string_view JsonReader::string() const {
  std::string_view text;
  require(value_.get(text) == simdjson::SUCCESS, "is not a string");
  return text;
}

int64_t JsonReader::integer(int64_t limit) const {
  int64_t number = 0;
  require(value_.get(number) == simdjson::SUCCESS, "is not an integer");
  require(number >= 0 && number < limit, "(", number, ") is not below ", limit);
  return number;
}

double JsonReader::number() const {
  double number = 0;
  require(value_.get(number) == simdjson::SUCCESS, "is not a number");
  return number;
}

simdjson::dom::array JsonReader::array() const {
  simdjson::dom::array values;
  require(value_.get(values) == simdjson::SUCCESS, "is not an array");
  return values;
}

simdjson::dom::object JsonReader::object() const {
  simdjson::dom::object values;
  require(value_.get(values) == simdjson::SUCCESS, "is not an object");
  return values;
}

JsonReader JsonReader::at(std::string_view key) const {
  simdjson::dom::element value;
  require(object().at_key(key).get(value) == simdjson::SUCCESS, "has no \"", key, "\"");
  return inside(value, key);
}

std::optional<JsonReader> JsonReader::find(std::string_view key) const {
  simdjson::dom::element value;
  if (object().at_key(key).get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return inside(value, key);
}

bool JsonReader::flag(std::string_view key, bool otherwise) const {
  const auto value = find(key);
  if (!value) return otherwise;
  bool flag = false;
  value->require(value->value_.get(flag) == simdjson::SUCCESS, "is not true or false");
  return flag;
}

std::vector<JsonReader> JsonReader::members() const {
  std::vector<JsonReader> members;
  for (const simdjson::dom::element value : array())
    members.push_back(inside(value, std::to_string(members.size())));
  return members;
}

JsonReader JsonReader::inside(simdjson::dom::element value, std::string_view key) const {
  return {value, concat(place_, place_.ends_with(':') ? " " : ".", key)};
}

}  // namespace moetron
