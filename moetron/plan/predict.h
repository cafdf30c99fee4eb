// How fast a run would be, and what it would hold.
#pragma once

#include "moetron/plan/hardware.h"
#include "moetron/plan/memory.h"
#include "moetron/plan/run_shape.h"
#include "moetron/schedule/from_options.h"
#include "moetron/schedule/simulate.h"

namespace moetron {

struct Prediction {
  Simulation simulation;           // in seconds, of the pipeline alone
  double step_time = 0;            // seconds, with the optimizer
  double tokens_per_second = 0;    // of a GPU
  double flops_per_second = 0;     // of a GPU, as arch/flops.h counts
  std::vector<RankMemory> memory;  // by rank of the pipeline
};

// `schedule` is that of `pipeline`.
Prediction predict(const RunShape& shape, const Hardware& hardware,
                   const PipelineSettings& pipeline, const Schedule& schedule);

}  // namespace moetron
