// The last of a save's three parts (checkpoint.h): a snapshot becomes a checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>

#include "moetron/checkpoint/save_plan.h"
#include "moetron/checkpoint/save_snapshot.h"

namespace moetron {

// Throws ConfigError unless `save`, which is there, takes new folders and has room for the tensors
// of one checkpoint of the plan: better before the first step than at the first save. By rank 0
// alone.
void check_can_save(const std::filesystem::path& save, const SavePlan& plan);

// Writes the checkpoint of `step` and returns its folder. One that is there already is replaced.
// Collective over `exchange` (null: a single rank), the one group that is used: of the ranks that
// the save was planned for, in their order, and of nobody else's while this runs, so that a write
// may go on beside training. All ranks write, each its blocks of the plan, for which the others
// send it what they hold; all but tensors is taken from rank 0. The files do not depend on the
// layout: their bytes are those that a single rank would write. When one rank fails, every rank
// throws its error: a ConfigError where the place is full or cannot be written (`save` must be one
// folder for all ranks), an InternalError where plan and snapshot do not belong together. What was
// there before stays as it was, and nothing temporary is left.
std::filesystem::path write_checkpoint(const std::filesystem::path& save, int64_t step,
                                       const SavePlan& plan, const SaveSnapshot& snapshot,
                                       Communicator* exchange);

}  // namespace moetron
