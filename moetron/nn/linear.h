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

}  // namespace moetron
