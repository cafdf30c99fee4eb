// Cross-entropy of bf16 logits on a GPU, forward and gradient in one kernel.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

// Whether the kernel takes these logits: bf16 on a GPU, contiguous, and a build with CUDA.
bool has_cross_entropy_kernel(const at::Tensor& logits);

// logits [tokens, vocab] are overwritten with their gradient times `scale`: (softmax - one at the
// label) * scale, zero for a token without a label (`ignored`). labels [tokens] int64. Returns the
// tokens' losses [tokens] fp32, unscaled, zero without a label.
at::Tensor cross_entropy_in_place(const at::Tensor& logits, const at::Tensor& labels,
                                  int64_t ignored, double scale);

}  // namespace moetron
