// What a run takes up from the checkpoint that it continues, and what must not change without a
// word between the two.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "moetron/base/json.h"
#include "moetron/checkpoint/trainer_state.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/datasets.h"
#include "moetron/train/start.h"

namespace moetron {

struct ResumedRun {
  int64_t step = 0;
  int64_t consumed_samples = 0;
  int64_t optimizer_steps = 0;
  bool has_optimizer = false;
  SampleCounts samples;
};

// Whether what the run begins with is what it trains: an adapter for low-rank updates of the same
// rank, alpha and targets, and weights for a model's. ConfigError, which says what to give, where
// it is not. Collective over `world`.
void check_tuning(const RunStart& start, const RunSpec& spec, Communicator& world);

// The options that start.resume notes, where the run keeps their learning rates; else nothing.
// Collective over `world`.
std::optional<Json> kept_options(const RunStart& start, const StartSpec& spec, Communicator& world);

// Compares options and `files` (describe_files()) with what start.resume noted of them, and says
// what differs. Throws ConfigError, with all differences in a table, where one that decides how the
// run trains is not in --accept-changes. Collective over `world`.
ResumedRun take_up(const RunStart& start, const RunSpec& spec, const Json& files,
                   Communicator& world);

// The text of a checkpoint's trainer.json: the state, and what take_up() compares. `num_ranks`: of
// the world.
std::string trainer_text(const TrainerState& state, const RunSpec& spec,
                         const SampleCounts& samples, const Json& files, int num_ranks);

}  // namespace moetron
