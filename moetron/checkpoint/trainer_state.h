// state/trainer.json of a checkpoint: where a run stood. What a resume needs is checked here, key
// by key, for a manifest says only that the file is what was written.
#pragma once

#include <cstdint>
#include <filesystem>

#include "moetron/base/json.h"

namespace moetron {

struct TrainerState {
  int64_t step = 0;
  int64_t consumed_samples = 0;
  int64_t optimizer_steps = 0;
  bool has_optimizer = true;
};

// The keys of `state`, in a document that may get others beside them.
Json write_trainer_state(const TrainerState& state);

// Throws InputError naming file and key where one is missing, or is no number >= 0 (has_optimizer:
// no boolean).
TrainerState parse_trainer_state(const Json& document, const std::filesystem::path& path);

}  // namespace moetron
