// The inner loops of the optimizer on raw pointers: one pass over memory, vectorised by the
// compiler. Torch is not needed here, so that this one unit can be compiled with flags of its own.
#pragma once

#include <cstdint>

namespace moetron {

struct AdamWCoefficients {
  float grad_scale;
  float keep;  // 1 - lr * weight_decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float sqrt_correction2;  // sqrt(1 - beta2^step)
  float eps;
  float minus_step_size;  // -lr / (1 - beta1^step)
};

struct AdamWPointers {
  float* value;
  float* exp_avg;
  float* exp_avg_sq;
  const float* grad;
};

void adamw_update(const AdamWPointers& pointers, int64_t count, const AdamWCoefficients& c);

// Nearest even, as torch rounds; NaN stays NaN.
void round_to_bf16(const float* values, uint16_t* rounded, int64_t count);

// In fp64, in an order that depends on `count` alone.
double sum_of_squares(const float* values, int64_t count);

}  // namespace moetron
