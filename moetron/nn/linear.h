// y = x W^T + b with the weight gradient added to the parameter's fp32 accumulator.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace moetron {

class Parameter;
class SegmentRun;

// x [..., in], weight [out, in], bias [out] or null -> [..., out]. Computed in `dtype`, by default
// x's; what has another is converted (the router's fp32 product of bf16), and x kept as it is.
at::Tensor linear(const at::Tensor& x, Parameter& weight, SegmentRun& run,
                  Parameter* bias = nullptr, std::optional<at::ScalarType> dtype = {});

// Adds d_y^T x to `accumulator` [out, in] (fp32). d_y [rows, out], x [rows, in]. Shared with the
// experts.
void add_weight_grad(const at::Tensor& accumulator, const at::Tensor& d_y, const at::Tensor& x);

}  // namespace moetron
