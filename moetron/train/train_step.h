// One optimizer step: every micro-batch forward and backward, gradients reduced, checked, clipped
// and applied, the routers' bias moved.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/metrics/step_record.h"
#include "moetron/optim/adamw.h"
#include "moetron/parallel/gradient_buffer.h"
#include "moetron/train/batches.h"

namespace moetron {

class Communicator;
class Model;

// A loss or gradient that is not a number: training stops before the optimizer sees it. The exit
// code asks launchers not to restart, since the same data would end in the same way.
class NonFiniteError : public Error {
 public:
  explicit NonFiniteError(const std::string& message) : Error(kExitDoNotRestart, message) {}
};

struct StepResult {
  double loss = 0;      // mean over the labelled tokens of the global batch
  double aux_loss = 0;  // auxiliary losses, coefficient included, mean over all tokens
  double grad_norm = 0;
  std::optional<RouterBalance> balance;
};

class TrainStep {
 public:
  // `clip_grad` 0: off. All references outlive the object.
  TrainStep(Model& model, AdamW& optimizer, Communicator& data_parallel, double clip_grad);

  // The optimizer's own count of steps, which its bias correction needs; 0 for fresh moments.
  void set_optimizer_steps(int64_t steps) { optimizer_steps_ = steps; }
  int64_t optimizer_steps() const { return optimizer_steps_; }

  // Step `step` counts from 1. Throws NonFiniteError naming rank or tensor.
  StepResult run(const StepBatch& batch, int64_t step, double lr);

  // Everything up to the optimizer: gradients are accumulated, reduced and folded; used by tests
  // too.
  StepResult accumulate(const StepBatch& batch, int64_t step);

 private:
  std::optional<RouterBalance> update_routers();

  Model& model_;
  AdamW& optimizer_;
  Communicator& data_parallel_;
  double clip_grad_;
  GradientBuffer gradients_;
  int64_t optimizer_steps_ = 0;
};

// Mean loss over `num_batches` global batches of `dataset` from sample 0, without training.
double evaluate(Model& model, const TokenDataset& dataset, int64_t num_batches,
                const BatchSettings& settings, Communicator& data_parallel);

}  // namespace moetron
