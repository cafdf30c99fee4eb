#include "moetron/arch/json_fields.h"

#include <algorithm>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// A value as a message shows it: whole if short, cut if not, never invalid UTF-8.
std::string shown(const Json& value) {
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

std::string range_text(double low, double high) {
  if (high >= std::numeric_limits<double>::max()) return concat("must be at least ", low);
  return concat("must be from ", low, " to ", high);
}

}  // namespace

JsonFields::JsonFields(const Json& object, std::string place)
    : object_(&object), place_(std::move(place)) {
  MT_CHECK_INPUT(object.is_object(), place_, ": a JSON object is expected, not ", shown(object));
}

const Json* JsonFields::find(std::string_view key) const {
  const auto found = object_->find(key);
  if (found == object_->end()) return nullptr;
  const bool absent =
      found->is_null() && std::find(nullable_.begin(), nullable_.end(), key) != nullable_.end();
  return absent ? nullptr : &*found;
}

bool JsonFields::is_null(std::string_view key) const {
  const auto found = object_->find(key);
  return found != object_->end() && found->is_null();
}

bool JsonFields::is_empty() const {
  return object_->empty();
}

std::optional<std::string> JsonFields::nested_key() const {
  for (const auto& [key, value] : object_->items())
    if (value.is_object()) return key;
  return std::nullopt;
}

void JsonFields::refuse(std::string_view key, const std::string& expectation) const {
  const Json* value = find(key);
  throw InputError(
      concat(place_, ": ", key, " (", value ? shown(*value) : "null", ") ", expectation));
}

int64_t JsonFields::checked_integer(const Json& value, std::string_view key, int64_t low,
                                    int64_t high) const {
  if (!value.is_number_integer()) refuse(key, "must be an integer");
  const bool too_large =
      value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  const int64_t result = too_large ? 0 : value.get<int64_t>();
  if (too_large || result < low || result > high)
    refuse(key, concat("must be from ", low, " to ", high));
  return result;
}

std::optional<int64_t> JsonFields::integer(std::string_view key, int64_t low, int64_t high) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  return checked_integer(*value, key, low, high);
}

int64_t JsonFields::required_integer(std::string_view key, int64_t low, int64_t high) const {
  const auto value = integer(key, low, high);
  MT_CHECK_INPUT(value.has_value(), place_, ": the key ", key, " is missing");
  return *value;
}

std::optional<double> JsonFields::number(std::string_view key, double low, double high) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_number()) refuse(key, "must be a number");
  const auto result = value->get<double>();
  if (!(result >= low && result <= high)) refuse(key, range_text(low, high));
  return result;
}

double JsonFields::required_number(std::string_view key, double low, double high) const {
  const auto value = number(key, low, high);
  MT_CHECK_INPUT(value.has_value(), place_, ": the key ", key, " is missing");
  return *value;
}

std::optional<bool> JsonFields::boolean(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) refuse(key, "must be true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_string()) refuse(key, "must be a string");
  return value->get<std::string>();
}

std::optional<std::vector<int64_t>> JsonFields::integers(std::string_view key, int64_t low,
                                                         int64_t high) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array()) refuse(key, "must be a list of integers");
  std::vector<int64_t> result;
  for (const Json& entry : *value) result.push_back(checked_integer(entry, key, low, high));
  return result;
}

std::optional<std::vector<std::string>> JsonFields::texts(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_array()) refuse(key, "must be a list of strings");
  std::vector<std::string> result;
  for (const Json& entry : *value) {
    if (!entry.is_string()) refuse(key, "must be a list of strings");
    result.push_back(entry.get<std::string>());
  }
  return result;
}

std::optional<JsonFields> JsonFields::object(std::string_view key) const {
  const Json* value = find(key);
  if (!value) return std::nullopt;
  if (!value->is_object()) refuse(key, "must be a JSON object");
  return JsonFields(*value, concat(place_, ": ", key));
}

}  // namespace moetron
