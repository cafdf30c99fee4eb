// Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467) as transformers computes it:
// statistics in fp32, the normalised value cast to x's dtype, then multiplied by the weight.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

class Parameter;
class SegmentRun;

// x [..., size], weight [size] -> [..., size]
at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps, SegmentRun& run);

}  // namespace moetron
