// One optimizer step: every micro-batch forward and backward, gradients reduced, checked, clipped
// and applied, the routers' bias moved. The same on every layout of ranks.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/metrics/step_record.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/parallel/gradient_buckets.h"
#include "moetron/pipeline/chunk.h"
#include "moetron/train/batches.h"

namespace moetron {

class Mesh;
class Model;

// A loss or gradient that is not a number: training stops before the optimizer sees it. The exit
// code asks launchers not to restart, since the same data would end in the same way.
class NonFiniteError : public Error {
 public:
  explicit NonFiniteError(const std::string& message) : Error(kExitDoNotRestart, message) {}
};

struct TrainSettings {
  AdamWSettings adamw = {};
  double clip_grad = 0;  // global norm; 0: off
  BucketSettings buckets = {};
};

struct StepResult {
  double loss = 0;      // mean over the labelled tokens of the global batch
  double aux_loss = 0;  // auxiliary losses, coefficient included, mean over all tokens
  double grad_norm = 0;
  std::optional<RouterBalance> balance;
  ActivationMemory activation_memory;  // of this rank's first micro-batch
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
  StepResult run(const StepBatch& batch, int64_t step, double lr);
  void wait_values() { buckets_.wait_all_values(); }

  // Everything up to the optimizer: gradients are accumulated, reduced and folded; used by tests
  // too.
  StepResult accumulate(const StepBatch& batch, int64_t step);

 private:
  ChunkHooks hooks(bool is_first, bool is_last);
  std::optional<RouterBalance> update_routers();

  Model& model_;
  Mesh& mesh_;
  TrainSettings settings_;
  GradientBuckets buckets_;
  AdamW optimizer_;
  GradNormMeter grad_norm_;
  std::map<Layer*, std::vector<Parameter*>> parameters_of_layer_;
  int64_t optimizer_steps_ = 0;
};

// Mean loss over `num_batches` global batches of `dataset` from sample 0, without training.
double evaluate(Model& model, Mesh& mesh, const TokenDataset& dataset, int64_t num_batches,
                const BatchSettings& settings);

}  // namespace moetron
