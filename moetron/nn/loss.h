// Cross-entropy of next-token prediction.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

constexpr int64_t kIgnoredLabel = -100;

// logits [tokens, vocab], labels [tokens] int64 (kIgnoredLabel: no loss) -> the sum over the
// labelled tokens, a scalar in fp32. Whoever calls divides by the count of the whole global batch.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace moetron
