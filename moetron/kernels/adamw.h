// One AdamW update on a GPU, as one pass over memory: 28 bytes a parameter, 30 with its bf16 value.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/adamw_arguments.h"

namespace moetron {

// All contiguous, [elements], on one GPU. Writes moments, and the new values: into `value` (fp32)
// where there is no `master`, else into `master` (fp32) and, rounded, into `value` (bf16). Each
// operation is rounded as on the host, so the bits are those of optim/fused_loops.h.
void adamw_update_on_gpu(const at::Tensor& value, const at::Tensor& master,
                         const at::Tensor& exp_avg, const at::Tensor& exp_avg_sq,
                         const at::Tensor& grad, const AdamWCoefficients& c);

}  // namespace moetron
