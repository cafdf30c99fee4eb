// Runs a rank's list of a schedule (DESIGN: idea 2), whatever kind it is of: schedules differ in
// data only.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "moetron/metrics/activation_memory.h"
#include "moetron/pipeline/chunk.h"
#include "moetron/pipeline/stage_links.h"
#include "moetron/schedule/receive_plan.h"
#include "moetron/schedule/stage_border.h"

namespace moetron {

// A schedule that is proved (schedule/validate_schedule.h), and when its messages are received.
struct PipelinePlan {
  // Throws InternalError naming rank and action if the lists are wrong: nothing runs that could
  // train something else, or wait for good. 0.6 s for 64 ranks and 4096 micro-batches.
  explicit PipelinePlan(Schedule made);

  Schedule schedule;
  ReceivePlan receives;
};

// A loss that learns after the forward how much each label weighs (preference losses do).
struct LateLoss {
  at::Tensor loss;                 // scalar
  at::Tensor d_log_probabilities;  // [tokens] fp32, its gradient
};

// One pass of micro-batches through the pipeline.
struct PipelineTask {
  std::span<const MicroBatch> micro_batches;
  bool with_grad = true;
  // The loss of a micro-batch whose record wants log-probabilities (`MicroBatch`), from those of
  // its labels, when its forward is done: called on the ranks that hold the head.
  std::function<LateLoss(int micro_batch, const at::Tensor& log_probabilities)> late_loss = {};

  std::function<void(const Step&)> before_step = {};
  // Of the first micro-batch: waits for the layer's parameters.
  std::function<void(Layer&)> before_forward = {};
  // All of this layer's weight gradients are complete: what R means.
  std::function<void(Layer&)> layer_done = {};
  bool measures_memory = false;
  PipelineTrace* trace = nullptr;
};

struct PipelineOutcome {
  std::vector<at::Tensor> losses;  // by micro-batch, scalars; undefined on ranks without the head
  // By micro-batch: what the last stage gives of one without labels; nothing on other ranks.
  std::vector<std::vector<Value>> outputs;
  // By chunk, micro-batch, layer of the chunk: scalars, undefined where a layer has none.
  std::vector<std::vector<std::vector<at::Tensor>>> aux_losses;
  // Kept by the forward of the first micro-batch, in all chunks, and the most that was alive until
  // its backward was done.
  ActivationMemory activation_memory;
};

class PipelineExecutor {
 public:
  // The references outlive the object. Throws InternalError unless the chunks' layers have the
  // slots that cross the borders of their stages.
  PipelineExecutor(std::vector<Chunk>& chunks, StageLinks& links, StageBorders borders);

  // The schedule has this placement and as many micro-batches as the task. Weight gradients are
  // added to the accumulators in the order of micro-batches.
  PipelineOutcome run(const PipelinePlan& plan, const PipelineTask& task);

 private:
  class Run;

  std::vector<Chunk>& chunks_;
  StageLinks& links_;
  StageBorders borders_;
};

}  // namespace moetron
