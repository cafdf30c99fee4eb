// The global gradient norm and the clip coefficient that follows from it.
#pragma once

#include <string>
#include <vector>

#include "moetron/autograd/parameter.h"

namespace moetron {

struct GradNorm {
  double norm = 0;         // L2 over all trainable parameters
  std::string non_finite;  // first tensor in name order with an infinity or NaN; empty: none
};

// Sums squares in fp64, a partial sum per named tensor (Hugging Face name) in the order of its
// elements, and adds the partials in name order: neither fusing, storage order nor thread count
// changes a bit. Tied parameters must have been folded into their owners.
GradNorm global_grad_norm(const std::vector<Parameter*>& parameters);

// What gradients are multiplied by so that their norm does not exceed `max_norm`, as Megatron has
// it: min(1, max_norm / (norm + 1e-6)). A `max_norm` of 0 turns clipping off.
double clip_coefficient(double norm, double max_norm);

}  // namespace moetron
