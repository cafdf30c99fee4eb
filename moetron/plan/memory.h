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
  double dense = 0;  // with the padding of the vocabulary, and with low-rank updates
  double experts = 0;
  double buffers = 0;  // the routers' biases, which have no gradient
  // Of each of those that have gradients: all but what is frozen.
  double dense_grads = 0;
  double expert_grads = 0;
  double tied_grads = 0;
  double updated = 0;  // of dense and experts: those whose optimizer states the rank holds
  // Of the head that reads the embedding's table: a copy where the embedding is on another rank.
  // It has a gradient of its own, and no optimizer states.
  double tied = 0;
  double in_fp8 = 0;  // of dense and experts: those that are multiplied in 8 bits

  void add(const StageParameters& other, double count);
};
// By stage, as `stages` is.
std::vector<StageParameters> stage_parameters(const RunSpec& spec,
                                              const std::vector<StageLayers>& stages);

// Bytes of one rank. Weights are bf16 (fp32 under dtype fp32; the routers' biases always), and
// twice in 8 bits beside that where products are; gradients are fp32; the optimizer's states are
// three fp32 numbers a parameter (two under fp32, which needs no master), divided among the
// replicas with a distributed optimizer.
struct RankMemory {
  double weights = 0;
  double gradients = 0;
  double optimizer = 0;    // on the GPU
  double activations = 0;  // kept of micro-batches, at their peak
  double working = 0;      // plan/activations.h: PassingBytes
  double travelling = 0;   // likewise
  double runtime = 0;      // CUDA and NCCL
  double host = 0;         // what hybridadam keeps in the host's memory, not part of the total

  // What tensors take: the peak that a run reports.
  double tensors() const {
    return weights + gradients + optimizer + activations + working + travelling;
  }
  double total() const { return tensors() + runtime; }
};

// Adds what a rank holds of these parameters. `copies_table`: of a table that is the head's and the
// embedding's it holds a copy.
void add_parameters(const RunSpec& spec, const StageParameters& held, bool copies_table,
                    RankMemory& memory);
double runtime_bytes(const ParallelSizes& sizes);  // RankMemory::runtime
// Whether forwards and backwards of a list run together.
bool has_blocks(const StepList& list);

// By rank of the pipeline; `parameters` and `stages` are by stage.
std::vector<RankMemory> memory_of(const RunSpec& spec, const Schedule& schedule,
                                  const std::vector<StageLayers>& stages,
                                  const std::vector<StageParameters>& parameters);
// Of the run as it is: makes its schedule.
std::vector<RankMemory> memory_of(const RunSpec& spec);

// The rank whose total is the greatest, the first of equal ones.
int fullest_rank(const std::vector<RankMemory>& memory);

}  // namespace moetron
