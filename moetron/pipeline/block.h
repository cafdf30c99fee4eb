// Runs the steps of a schedule (schedule/schedule.h, Step): an action alone, or two that run
// together so that one hides the communication of the other, in the order of
// schedule/instructions.h.
#pragma once

#include <functional>

#include "moetron/pipeline/chunk.h"

namespace moetron {

// Weight gradients of another micro-batch, which run while an F or I waits.
class Filler {
 public:
  Filler() = default;
  // The oldest `num_tasks` of `tasks`, in equal parts at each wait of the list.
  Filler(WeightGradQueue& tasks, size_t num_tasks, const TraceTarget& trace)
      : tasks_(&tasks), num_tasks_(num_tasks), trace_(trace) {}

  void expect_waits(size_t count) { num_waits_ = count; }
  void fill_wait();
  void finish();  // what is left

 private:
  void run_some(size_t count);

  WeightGradQueue* tasks_ = nullptr;
  size_t num_tasks_ = 0;
  size_t num_waits_ = 0;
  TraceTarget trace_;
};

// Who takes part in a step. Those that a list does not name may be null. The results are called
// once each, as soon as they are there: what a step does behind them hides their journey.
struct StepRuns {
  ChunkRun* forward = nullptr;
  ChunkRun* backward = nullptr;
  std::function<void(std::vector<Value> outputs)> on_outputs = {};
  std::function<void(std::vector<at::Tensor> d_inputs)> on_d_inputs = {};
};

// What the filler has left comes last.
void run_instructions(const InstructionList& list, const StepRuns& runs, Filler filler = {});

// A forward, or an I or B, of a chunk alone.
std::vector<Value> forward_chunk(ChunkRun& run, std::vector<Value> inputs,
                                 const WalkSettings& settings = {});
std::vector<at::Tensor> backward_chunk(ChunkRun& run, std::vector<at::Tensor> d_outputs,
                                       const WalkSettings& settings = {});

}  // namespace moetron
