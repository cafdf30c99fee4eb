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

// A sum with what rounding took from it: twice the digits, so that the order of adding shows in
// `sum + rest` as good as never (T. J. Dekker, "A floating-point technique for extending the
// available precision", 1971).
struct CarriedSum {
  double sum = 0;
  double rest = 0;

  void add(double value);
  void add(const CarriedSum& other);
};

// Squares of fp32 numbers are exact in fp64.
CarriedSum sum_of_squares(const float* values, int64_t count);

}  // namespace moetron
