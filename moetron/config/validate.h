// Checks of options against each other that need neither model files nor data.
#pragma once

#include <cstdint>
#include <optional>

#include "moetron/config/options.h"

namespace moetron {

// Throws ConfigError naming the options and their values. world_size: ranks of the run.
void validate(const Options& options, Command command, int64_t world_size);

// Ranks that hold copies of the dense layers: world_size over the tensor and pipeline ranks.
int64_t data_parallel_size(const ParallelOptions& parallel, int64_t world_size);

// Rows of an expert over the mean, beyond which tokens are dropped; empty: nothing is dropped.
// force-drop-and-padding means 1 unless moe-expert-capacity-factor says otherwise.
std::optional<double> capacity_factor(const MoeOptions& moe);
// Whether every expert's rows are padded to its capacity.
bool pads_to_capacity(const MoeOptions& moe);

}  // namespace moetron
