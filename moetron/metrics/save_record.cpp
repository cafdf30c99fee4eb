#include "moetron/metrics/save_record.h"

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"

namespace moetron {
namespace {

template <class T>
T value_of(const Json& json, const char* key, const std::string& place) {
  const auto found = json.find(key);
  MT_CHECK_INPUT(found != json.end(), place, ": a save lacks the key ", key);
  const bool fits = std::is_same_v<T, int64_t> ? found->is_number_integer() : found->is_number();
  MT_CHECK_INPUT(fits, place, ": ", key, " of a save is no number of its kind");
  return found->get<T>();
}

}  // namespace

Json to_json(const SaveRecord& record) {
  Json out{{"step", record.step},
           {"stall_seconds", record.stall_seconds},
           {"write_seconds", record.write_seconds},
           {"bytes", record.bytes},
           {"crossed", record.crossed}};
  if (!record.failure.empty()) out["failure"] = record.failure;
  return out;
}

SaveRecord parse_save_record(const Json& json, const std::string& place) {
  MT_CHECK_INPUT(json.is_object(), place, ": a save is no object");
  SaveRecord record{.step = value_of<int64_t>(json, "step", place),
                    .stall_seconds = value_of<double>(json, "stall_seconds", place),
                    .write_seconds = value_of<double>(json, "write_seconds", place),
                    .bytes = value_of<int64_t>(json, "bytes", place),
                    .crossed = value_of<double>(json, "crossed", place)};
  if (const auto failure = json.find("failure"); failure != json.end()) {
    MT_CHECK_INPUT(failure->is_string(), place, ": failure of a save is no text");
    record.failure = failure->get<std::string>();
  }
  return record;
}

std::string describe(const SaveRecord& record, int num_ranks) {
  const double speed =
      record.write_seconds > 0 ? static_cast<double>(record.bytes) / record.write_seconds : 0;
  std::string text =
      formatted("stall %.2g s, write %.2g s, ", record.stall_seconds, record.write_seconds);
  text += speed < 1e9 ? formatted("%.3g MB/s", speed / 1e6) : formatted("%.3g GB/s", speed / 1e9);
  if (num_ranks > 1)
    text += formatted(", %.2g %% of the bytes crossed ranks", 100 * record.crossed);
  return text;
}

}  // namespace moetron
