// Root-mean-square norm (Zhang and Sennrich, arXiv 1910.07467) as transformers computes it:
// statistics in fp32, the normalised value cast to x's dtype, then multiplied by the weight.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/nn/linear.h"

namespace moetron {

class Parameter;
class SegmentRun;

// x [..., size], weight [size] -> [..., size]
at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps, SegmentRun& run);

// Makes rms_norm(x) anew from x, which it keeps, as the norm's own backward does anyway.
Remake remake_norm(const at::Tensor& x, const Parameter& weight, double eps, const SegmentRun& run);

struct NormedSum {
  at::Tensor sum;  // x + delta: what else reads them reads this
  at::Tensor y;    // the sum normed
};

// The norm beside a residual connection: one pass adds and norms, and one pass of the backward
// joins the two gradients. x and delta [..., size]; delta undefined: `sum` is x again, for its
// other readers.
NormedSum add_and_norm(const at::Tensor& x, const at::Tensor& delta, Parameter& weight, double eps,
                       SegmentRun& run);

}  // namespace moetron
