// The steps of a schedule (schedule/schedule.h, Step): an action alone, or two that run together so
// that one hides the communication of the other. Every kernel sees the same inputs in each form, so
// the results are the same bits.
#pragma once

#include <functional>

#include "moetron/pipeline/chunk.h"

namespace moetron {

// Called once each, as soon as the result is there: what a step does behind it hides the result's
// journey to another rank.
struct StepResults {
  std::function<void(at::Tensor output)> on_output;
  std::function<void(at::Tensor d_input)> on_d_input;
};

// F beside B, layer by layer, in the order of DeepSeek-AI's DualPipe (the profile published with
// it). Computed: attention F, experts I, experts W, experts F, attention I, attention W; meanwhile,
// each started as soon as its input is there: combine's backward, dispatch, dispatch's backward,
// combine. Of chunks with different numbers of layers those without a partner run alone. The
// results leave before the last weight gradients.
void run_forward_beside_backward(ChunkForward& forward, ChunkBackward& backward,
                                 const StepResults& results);

// Weight gradients of another micro-batch, which run while an F or I waits.
class Filler {
 public:
  Filler() = default;
  // The oldest `num_tasks` of `tasks`, in equal parts at each of `num_waits` waits.
  Filler(WeightGradQueue& tasks, size_t num_tasks, size_t num_waits, const TraceTarget& trace)
      : tasks_(&tasks), num_tasks_(num_tasks), num_waits_(num_waits), trace_(trace) {}

  void fill_wait();
  void finish();  // what is left

 private:
  void run_some(size_t count);

  WeightGradQueue* tasks_ = nullptr;
  size_t num_tasks_ = 0;
  size_t num_waits_ = 0;
  TraceTarget trace_;
};

// F, and I or B, alone or beside a W. What the filler has left comes last.
void run_forward(ChunkForward& forward, Filler filler, const StepResults& results);
void run_backward(ChunkBackward& backward, Filler filler, const StepResults& results);

}  // namespace moetron
