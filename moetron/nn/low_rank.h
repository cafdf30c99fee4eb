// What the low-rank updates of a weight (autograd/adapter.h) add to its product.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/nn/linear.h"

namespace moetron {

// x [..., in], y [..., out] = x W^T, which nobody else reads -> the same memory with the updates of
// `weight` added, in the graph. With `remake_x` x is not kept, as in linear(). Does nothing for a
// weight without updates.
at::Tensor add_low_rank(const at::Tensor& y, const at::Tensor& x, Parameter& weight,
                        SegmentRun& run, Remake remake_x = {});

}  // namespace moetron
