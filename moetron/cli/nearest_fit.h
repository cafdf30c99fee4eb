// Which change lets a run fit that needs more memory than there is.
#pragma once

#include <string>

#include "moetron/plan/hardware.h"
#include "moetron/run/resolve.h"

namespace moetron {

// Tries changes of the options, those that cost little time first: states divided among replicas,
// the experts' product recomputed, then their layer's part, then whole layers, smaller
// micro-batches, several of these; states on the host, alone and beside them; other numbers of
// pipeline, expert-parallel and tensor-parallel ranks among as many ranks in all, the nearest
// first, at last with all of these. "it fits with --moe-layer-recompute (71.30 GB)": the options to
// add, or, where nothing fits, what comes closest. `options` resolve with `facts`, and do not fit.
std::string nearest_fit(const Options& options, const RunFacts& facts, const Hardware& hardware);

}  // namespace moetron
