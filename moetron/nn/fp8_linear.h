// y = x W^T + b in 8 bits (kernels/fp8.h): DeepSeek-V3's recipe (arXiv 2412.19437, 3.3) for the
// forward, the input gradient and the weight gradient, which is added to the fp32 accumulator.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/fp8.h"
#include "moetron/nn/linear.h"

namespace moetron {

// From now on products with this weight are computed in 8 bits. Throws ConfigError where its device
// has none of its sizes or dtype.
void multiply_in_fp8(Parameter& weight, const Fp8Products& products);

// x [..., in] in bf16 or fp32, weight [out, in], bias [out] or null -> [..., out] of x's dtype.
// What waits for the weight gradient is in 8 bits, unless that has factors of x's dtype. With
// `remake_x` x is not kept.
at::Tensor fp8_linear(const at::Tensor& x, Parameter& weight, SegmentRun& run, Parameter* bias,
                      Remake remake_x);

// In the graph: x [rows, size] in 8 bits. Its gradient is of x's dtype, and passes as it is.
Fp8Rows quantise_rows(const at::Tensor& x, at::ScalarType dtype, SegmentRun& run);

// fp8_linear() of what is in 8 bits already: x [rows, in] -> [rows, out] of the weight's dtype. The
// weight's gradient has its factors in 8 bits.
at::Tensor fp8_linear(const Fp8Rows& x, Parameter& weight, SegmentRun& run);

}  // namespace moetron
