// Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467), statistics in fp32. One kernel a
// pass for bf16 on a GPU; ATen elsewhere and where `operators` are plain, rounding where
// transformers rounds.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/operators.h"

namespace moetron {

struct RmsNormed {
  at::Tensor sum;          // [..., size] x + delta; x itself without a delta
  at::Tensor y;            // [..., size] the sum normed, of x's dtype
  at::Tensor inverse_rms;  // [..., 1] fp32
};

// x [..., size], delta like x or undefined, weight [size].
RmsNormed rms_norm_forward(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                           double eps, Operators operators = Operators::kFastest);

struct RmsNormGrads {
  at::Tensor d_x;             // [..., size], of the sum: of x, and of delta
  at::Tensor d_weight_parts;  // [parts, size] fp32; their sum is the weight's gradient
};

// `x` is the sum that was normed; `d_sum`, undefined for zero, is added to its gradient.
RmsNormGrads rms_norm_backward(const at::Tensor& d_y, const at::Tensor& d_sum, const at::Tensor& x,
                               const at::Tensor& inverse_rms, const at::Tensor& weight,
                               Operators operators = Operators::kFastest);

}  // namespace moetron
