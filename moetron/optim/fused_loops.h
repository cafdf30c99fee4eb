// The inner loops of the optimizer on raw pointers: one pass over memory, vectorised by the
// compiler. Torch is not needed here, so that this one unit can be compiled with flags of its own.
#pragma once

#include <cstdint>

namespace moetron {

// The update of AdamW in the form that Kingma and Ba (arXiv 1412.6980, section 2) give as the more
// efficient one: the correction of the second moment goes into step size and eps.
struct AdamWCoefficients {
  float grad_scale;
  float keep;  // 1 - lr * weight_decay
  float one_minus_beta1;
  float beta2;
  float one_minus_beta2;
  float eps;              // times sqrt(1 - beta2^step)
  float minus_step_size;  // -lr * sqrt(1 - beta2^step) / (1 - beta1^step)
};

struct AdamWPointers {
  float* value;
  float* exp_avg;
  float* exp_avg_sq;
  const float* grad;
  // The new values as bf16: nearest even, as torch rounds, and NaN stays NaN; null: not asked for.
  uint16_t* rounded = nullptr;
};

// The vectors of a loop. The result has the same bits with each.
enum class VectorWidth { kBaseline, kAvx2, kAvx512 };
VectorWidth widest_vectors();  // of this processor

// No two of the arrays overlap. `width`: at most widest_vectors().
void adamw_update(const AdamWPointers& pointers, int64_t count, const AdamWCoefficients& c,
                  VectorWidth width = widest_vectors());

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
