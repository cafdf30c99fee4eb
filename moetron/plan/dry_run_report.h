// A dry run as text for people.
#pragma once

#include <string>

#include "moetron/plan/dry_run.h"

namespace moetron {

// Lines under labels, the last without a line end: model, mesh, memory by rank and purpose, step,
// speed, checkpoint. `spec` and `hardware` are those of the dry run.
std::string describe(const DryRun& run, const RunSpec& spec, const Hardware& hardware);

// "rank 3 of the pipeline would hold 95.20 GB of a GPU's 80.00 GB": of the fullest rank, or of one
// whose host has too little, where that is all.
std::string describe_overflow(const std::vector<RankMemory>& memory, const Hardware& hardware);

}  // namespace moetron
