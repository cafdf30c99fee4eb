// What a rank holds.
#pragma once

#include <vector>

#include "moetron/arch/stage_layers.h"
#include "moetron/run/run_spec.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

// Elements of a stage's parameters that one rank holds, by the rules of arch/tensors.h; those of
// routed experts apart, for their replicas are other ranks.
struct StageParameters {
  double dense = 0;  // with the padding of the vocabulary
  double experts = 0;
  double buffers = 0;  // the routers' biases, which have no gradient
  double updated = 0;  // of dense and experts: those whose optimizer states the rank holds
  // Of the head that reads the embedding's table: a copy where the embedding is on another rank.
  // It has a gradient of its own, and no optimizer states.
  double tied = 0;
};
// By stage, as `stages` is.
std::vector<StageParameters> stage_parameters(const RunSpec& spec,
                                              const std::vector<StageLayers>& stages);

// Bytes of one rank. Weights are bf16 (the routers' biases fp32), gradients fp32, the optimizer's
// states three fp32 numbers a parameter, divided among the replicas with a distributed optimizer.
struct RankMemory {
  double weights = 0;
  double gradients = 0;
  double optimizer = 0;
  double activations = 0;  // at their peak

  double total() const { return weights + gradients + optimizer + activations; }
};

// What the backward of one micro-batch keeps of a stage, in bytes. Of an expert the first product's
// output is kept and the activation computed again, and the second's output is not needed.
double activation_bytes(const RunSpec& spec, const StageLayers& stage);

// By rank of the pipeline; `parameters` and `stages` are by stage.
std::vector<RankMemory> memory_of(const RunSpec& spec, const Schedule& schedule,
                                  const std::vector<StageLayers>& stages,
                                  const std::vector<StageParameters>& parameters);

}  // namespace moetron
