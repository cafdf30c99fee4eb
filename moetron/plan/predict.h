// How fast a run would be, and what it would hold.
#pragma once

#include "moetron/plan/hardware.h"
#include "moetron/plan/memory.h"
#include "moetron/run/run_spec.h"
#include "moetron/schedule/simulate.h"

namespace moetron {

struct Prediction {
  Simulation simulation;           // in seconds, of the pipeline alone
  double update_time = 0;          // seconds, of the optimizer
  double step_time = 0;            // seconds, of both
  double tokens_per_second = 0;    // of a GPU
  double flops_per_second = 0;     // of a GPU, as arch/flops.h counts
  std::vector<RankMemory> memory;  // by rank of the pipeline
};

// The model's MTP layers are counted with the stage that has the head: a layer, the product that
// joins hidden state and embedding, and the head once more for each. (A run that is resolved to
// train has none.) `schedule` is that of the run's pipeline.
Prediction predict(const RunSpec& spec, const Hardware& hardware, const Schedule& schedule);

}  // namespace moetron
