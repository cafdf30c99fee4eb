// AdamW with decoupled weight decay (Loshchilov and Hutter, "Decoupled Weight Decay
// Regularization", ICLR 2019), the arithmetic of torch.optim.AdamW. Moments are fp32; a parameter
// whose value is not fp32 has an fp32 master copy that the value is rounded from after every step.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"

namespace moetron {

struct AdamWSettings {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;  // only where ParameterSettings::weight_decay
};

class AdamW {
 public:
  // Tied parameters and those that are not trainable are left out: a tied one is updated with its
  // owner, after Parameter::fold_tied_grad(). Masters begin as copies of the values.
  AdamW(const std::vector<Parameter*>& parameters, AdamWSettings settings);

  // One update with the gradients of Parameter::grad(), each multiplied by `grad_scale` (the clip
  // coefficient). `step` counts from 1. A parameter without an accumulator is left alone.
  void step(double lr, int64_t step, double grad_scale = 1);

  // Clears the accumulators of all parameters given, tied ones too.
  void zero_grads();

  // Masters from the values: for weights that were loaded or initialised after construction,
  // without optimizer state.
  void reset_masters();

  // Everything a checkpoint must hold, as slices under "exp_avg.NAME", "exp_avg_sq.NAME" and
  // "master.NAME" with the Hugging Face name of each piece. The views share memory with the
  // optimizer, so loading writes into them.
  std::vector<NamedSlice> states() const;

 private:
  struct State {
    Parameter* parameter;
    at::Tensor exp_avg;     // fp32, value's shape
    at::Tensor exp_avg_sq;  // fp32, value's shape
    at::Tensor master;      // fp32, value's shape; undefined where the value itself is fp32
  };

  AdamWSettings settings_;
  std::vector<Parameter*> parameters_;
  std::vector<State> states_;
};

}  // namespace moetron
