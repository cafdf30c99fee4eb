// The operations of a step of a schedule, in the order in which a rank issues them.
#pragma once

#include "moetron/plan/layer_times.h"
#include "moetron/plan/two_streams.h"
#include "moetron/schedule/costs.h"

namespace moetron {

// What a chunk holds, from its first layer to its last.
struct ChunkTimes {
  std::vector<LayerTimes> layers;
  PartTimes embedding;  // 0 where another stage has it
  PartTimes head;
  double reduce = 0;  // of the gradients over their replicas
};

struct ProgramSettings {
  // Whether dispatch and combine run beside the compute of a step's two actions; the shared expert
  // runs beside them in any step then.
  bool overlaps = false;
  double compute_rate = 1;  // beside communication
  Recompute recompute = Recompute::kNothing;
};

// Seconds of a step whose actions are of these chunks. A block of F and B goes layer by layer in
// the order of DeepSeek's published trace: combine B, attention F, experts B, dispatch F, dispatch
// B, experts W, experts F, attention B, attention W, combine F; the layers that one has more than
// the other follow. Gradients of inputs are sent before the last layer's attention W.
StepCost step_cost(const Step& step, const ChunkTimes& action_chunk, const ChunkTimes& beside_chunk,
                   const ProgramSettings& settings);

}  // namespace moetron
