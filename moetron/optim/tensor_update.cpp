#include "moetron/optim/tensor_update.h"

#include <ATen/ATen.h>

namespace moetron {

void adamw_update_tensors(at::Tensor value, at::Tensor exp_avg, at::Tensor exp_avg_sq,
                          const at::Tensor& grad, const AdamWCoefficients& c) {
  const at::Tensor g = c.grad_scale == 1 ? grad : grad * c.grad_scale;
  // Not lerp_(), which chooses between two forms by its weight.
  exp_avg.add_(g - exp_avg, c.one_minus_beta1);
  exp_avg_sq.mul_(c.beta2).addcmul_(g, g, c.one_minus_beta2);
  const at::Tensor denominator = exp_avg_sq.sqrt().div_(c.sqrt_correction2).add_(c.eps);
  value.mul_(c.keep).addcdiv_(exp_avg, denominator, c.minus_step_size);
}

}  // namespace moetron
