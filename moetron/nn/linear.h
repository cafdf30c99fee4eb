// y = x W^T + b with the weight gradient added to the parameter's fp32 accumulator.
#pragma once

#include <functional>
#include <optional>

#include <ATen/core/Tensor.h>

namespace moetron {

class Parameter;
class SegmentRun;

// Makes a value anew, to the same bits: for a backward that does not keep it.
using Remake = std::function<at::Tensor()>;

// x [..., in], weight [out, in], bias [out] or null -> [..., out]. Computed in `dtype`, by default
// x's; what has another is converted (the router's fp32 product of bf16), and x kept as it is. With
// `remake_x` it is not kept: the weight gradient makes it anew. A weight that is multiplied in 8
// bits has fp8_linear().
at::Tensor linear(const at::Tensor& x, Parameter& weight, SegmentRun& run,
                  Parameter* bias = nullptr, std::optional<at::ScalarType> dtype = {},
                  Remake remake_x = {});

}  // namespace moetron
