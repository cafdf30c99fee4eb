#include "moetron/checkpoint/trainer_state.h"

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"

namespace moetron {
namespace {

const Json& value_of(const Json& document, const char* key, const std::string& path) {
  MT_CHECK_INPUT(document.contains(key), path, " lacks the key ", key);
  return document.at(key);
}

int64_t count_of(const Json& document, const char* key, const std::string& path) {
  const Json& value = value_of(document, key, path);
  const bool is_count = value.is_number_integer() && value >= 0 && value <= INT64_MAX;
  MT_CHECK_INPUT(is_count, path, ": ", key, " (", value.dump(), ") must be a whole number >= 0");
  return value.get<int64_t>();
}

}  // namespace

Json write_trainer_state(const TrainerState& state) {
  return {{"step", state.step},
          {"consumed_samples", state.consumed_samples},
          {"optimizer_steps", state.optimizer_steps},
          {"has_optimizer", state.has_optimizer}};
}

TrainerState parse_trainer_state(const Json& document, const std::filesystem::path& path) {
  const std::string name = path.string();
  MT_CHECK_INPUT(document.is_object(), name, " holds no object");
  const Json& has_optimizer = value_of(document, "has_optimizer", name);
  MT_CHECK_INPUT(has_optimizer.is_boolean(), name, ": has_optimizer (", has_optimizer.dump(),
                 ") must be true or false");
  return {.step = count_of(document, "step", name),
          .consumed_samples = count_of(document, "consumed_samples", name),
          .optimizer_steps = count_of(document, "optimizer_steps", name),
          .has_optimizer = has_optimizer.get<bool>()};
}

}  // namespace moetron
