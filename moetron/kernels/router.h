// The router's scores, choice and weights in one kernel forward and one backward, on a GPU. The
// rules are those of moe/router.h, which has the same of operators for CPUs.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "moetron/kernels/router_rule.h"

namespace moetron {

// Whether the kernels take these logits: on a GPU, at most 512 experts, and a build with CUDA.
bool has_router_kernel(const at::Tensor& logits);

struct RouterScores {
  at::Tensor scores;   // [tokens, E] fp32
  at::Tensor chosen;   // [tokens, K] int64, best first; among equals the lowest number
  at::Tensor weights;  // [tokens, K] fp32
};

// logits [tokens, E] fp32 or bf16; bias [E] fp32, added to the scores for the choice alone, or
// undefined. `earlier` [tokens, K] int64: the choice where it was made before, else undefined.
// counts [E] int64, to which the choices of the first `num_counted` tokens are added.
RouterScores router_forward(const at::Tensor& logits, const at::Tensor& bias,
                            const at::Tensor& earlier, const RouterRule& rule,
                            const at::Tensor& counts, int64_t num_counted);

// d_weights [tokens, K] and d_scores [tokens, E] fp32, either undefined for zero -> d_logits
// [tokens, E], of `dtype`.
at::Tensor router_backward(const at::Tensor& d_weights, const at::Tensor& d_scores,
                           const RouterScores& forward, const RouterRule& rule,
                           at::ScalarType dtype);

}  // namespace moetron
