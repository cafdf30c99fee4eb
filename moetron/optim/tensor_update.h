// The update of fused_loops.h as tensor operations: for devices, where a pass over memory per
// operation costs little beside the model.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/optim/fused_loops.h"

namespace moetron {

// All [elements] fp32 on one device. Writes value and moments.
void adamw_update_tensors(at::Tensor value, at::Tensor exp_avg, at::Tensor exp_avg_sq,
                          const at::Tensor& grad, const AdamWCoefficients& c);

}  // namespace moetron
