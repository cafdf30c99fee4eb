// One optimizer step: every micro-batch forward and backward, gradients reduced, checked, clipped
// and applied, the routers' bias moved. The same on every layout of ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "moetron/metrics/step_record.h"
#include "moetron/models/tied_weight.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/optim/parameter_counts.h"
#include "moetron/parallel/gradient_buckets.h"
#include "moetron/pipeline/executor.h"
#include "moetron/run/run_spec.h"
#include "moetron/schedule/schedule.h"
#include "moetron/train/batches.h"
#include "moetron/train/receipt_meter.h"
#include "moetron/train/step_losses.h"

namespace moetron {

class Mesh;
class Model;

struct TrainSettings {
  AdamWSettings adamw = {};
  OffloadSettings offload = {};
  double clip_grad = 0;  // global norm; 0: off
  bool measure_params_norm = false;
  bool count_zeros_in_grad = false;
  std::optional<PreferenceSpec> preferences = {};  // batches are of pairs; empty: they are not
  BucketSettings buckets = {};
  // The numbers of ranks and micro-batches in it follow from mesh and batch.
  ScheduleRequest schedule = {};
  std::vector<StageLayers> stages = {};  // all of the pipeline; empty: the model's, on one rank
};

struct StepResult {
  double loss = 0;  // mean over the labelled tokens of the global batch, or over its pairs
  std::optional<Rewards> rewards;  // of pairs
  double aux_loss = 0;             // aux losses, coefficient included, mean over all tokens
  double grad_norm = 0;
  std::optional<double> params_norm;         // behind the update
  std::optional<int64_t> num_zeros_in_grad;  // of the elements of all gradients
  std::optional<RouterBalance> balance;
  ActivationMemory activation_memory;  // of this rank, see PipelineOutcome
  std::optional<BitReceipt> receipt;   // where it was asked for
};

// What a step's record has of it.
StepRecord record_of(const StepResult& result);

struct Evaluation {
  double loss = 0;                 // as StepResult has it
  std::optional<Rewards> rewards;  // of pairs
};

class TrainStep {
 public:
  // Moves the model's parameters into buckets. The references outlive the object. Collective.
  TrainStep(Model& model, Mesh& mesh, const TrainSettings& settings);

  AdamW& optimizer() { return optimizer_; }
  // What this rank updates, with the reduced gradients.
  const std::vector<OwnedStretch>& owned() const { return buckets_.owned(); }
  // The optimizer's own count of steps, which its bias correction needs; 0 for fresh moments.
  void set_optimizer_steps(int64_t steps) { optimizer_steps_ = steps; }
  int64_t optimizer_steps() const { return optimizer_steps_; }

  // Step `step` counts from 1. Throws NonFiniteError naming rank or tensor. With an overlapped
  // gather the new values are complete only after wait_values() or within the next step.
  StepResult run(const StepBatch& batch, int64_t step, double lr, bool with_receipt = false);
  void wait_values() { buckets_.wait_all_values(); }

  // Everything up to the gradient norm: gradients are accumulated, folded and reduced. Waits for no
  // device.
  struct Accumulated {
    PendingLosses losses;
    at::Tensor rewards;  // of pairs: [4] fp64, sums over the global batch (train/preference_loss.h)
    ActivationMemory activation_memory;
  };
  Accumulated accumulate(const StepBatch& batch, int64_t step);

  // Mean loss over `num_batches` global batches of `dataset` from sample 0, without training; of
  // every rank. Collective.
  Evaluation evaluate(const TokenDataset& dataset, int64_t num_batches,
                      const BatchSettings& settings);

  // What the model as it is gives the labels of each sample of `dataset`, which fills global
  // batches of pairs: the sums of their log-probabilities, of all samples on every rank. Forwards
  // alone. Collective.
  std::vector<double> log_probabilities(const TokenDataset& dataset, const BatchSettings& settings);

  // Called in every step once its gradients are known, before parameters or the optimizer's states
  // change: what reads them beside the step must end there.
  void set_before_update(std::function<void()> before_update) {
    before_update_ = std::move(before_update);
  }

  // From now on each step's record of what this rank did when; null: none. Without
  // `measures_memory` StepResult::activation_memory is empty: a KernelProfile measures instead.
  void set_trace(PipelineTrace* trace, bool measures_memory) {
    trace_ = trace;
    measures_memory_ = measures_memory;
  }
  // The schedule of a step of so many micro-batches, proved when it is first asked for. Throws
  // ConfigError if there is none.
  const PipelinePlan& plan(size_t num_micro_batches);
  // The same of forwards alone.
  const PipelinePlan& evaluation_plan(size_t num_micro_batches);

 private:
  ScheduleRequest request(int num_micro_batches) const;
  PipelineTask training_task(const StepBatch& batch, int64_t step);
  PipelineTask forward_task(const StepBatch& batch);
  // Has the task make the loss of pairs, and returns where it adds up their rewards: [4] fp64. For
  // batches that are none, nothing, and an undefined tensor.
  at::Tensor take_preferences(const StepBatch& batch, PipelineTask& task) const;
  // Adds up what ranks without the head, and others of the data, have of it. May be undefined.
  void sum_over_batch(const at::Tensor& sums);
  void layer_done(Layer& layer);
  void share_tied_values();
  std::optional<RouterBalance> update_routers();
  ReceiptMeter& receipt_meter();

  Model& model_;
  Mesh& mesh_;
  TrainSettings settings_;
  GradientBuckets buckets_;
  AdamW optimizer_;
  GradNormMeter grad_norm_;
  std::optional<ReceiptMeter> receipt_meter_;  // once it was asked for
  ParameterCounts counts_;
  std::vector<std::unique_ptr<TiedWeight>> ties_;
  StageLinks links_;
  PipelineExecutor executor_;
  std::optional<PipelinePlan> plan_;
  std::optional<PipelinePlan> evaluation_plan_;
  PipelineTrace* trace_ = nullptr;
  bool measures_memory_ = true;
  std::map<Layer*, std::vector<Parameter*>> parameters_of_layer_;
  std::function<void()> before_update_;  // null: nothing to do
  int64_t optimizer_steps_ = 0;
};

}  // namespace moetron
