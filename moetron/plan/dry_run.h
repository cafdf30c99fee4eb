// What a run would hold and how fast it would be, without running it: numbers alone. Their text is
// plan/dry_run_report.h.
#pragma once

#include "moetron/plan/checkpoint_size.h"
#include "moetron/plan/predict.h"

namespace moetron {

// Seconds of a step, on average over the ranks of a pipeline; they add up to the step.
struct StepParts {
  double compute = 0;
  double exposed = 0;    // tokens travel to experts and back while nothing is computed
  double reduced = 0;    // gradients are summed over their replicas, as far as it adds to the time
  double waiting = 0;    // for other stages: the bubble, messages included
  double optimizer = 0;  // with the gathering of new values
};

struct DryRun {
  Prediction prediction;
  StepParts parts;
  int64_t trained = 0;  // elements, over all ranks
  ModelElements elements;
  CheckpointBytes checkpoint;
  int fullest = 0;  // rank of the pipeline that holds most
  bool fits = false;

  const RankMemory& most() const { return prediction.memory[static_cast<size_t>(fullest)]; }
};

// The run as it was resolved, on GPUs in bf16 unless its dtype is fp32. Products in 8 bits are
// counted in the memory; their times are those of bf16. Throws nothing that resolving the run did
// not.
DryRun dry_run(const RunSpec& spec, const Hardware& hardware);

// Bytes of host memory for each GPU of a node.
inline double host_share(const Hardware& hardware) {
  return hardware.host_memory / static_cast<double>(hardware.gpus_per_node);
}

// Whether every rank's memory is there, of its GPU and of its host.
bool fits(const std::vector<RankMemory>& memory, const Hardware& hardware);

}  // namespace moetron
