// What an AdamW update works on, on a host or a GPU. Free of torch's and CUDA's headers.
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

}  // namespace moetron
