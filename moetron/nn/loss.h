// Cross-entropy of next-token prediction, over a vocabulary that tensor-parallel ranks divide.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/nn/embedding.h"

namespace moetron {

constexpr int64_t kIgnoredLabel = -100;

// logits [tokens, rows of the shard], labels [tokens] int64 (kIgnoredLabel: no loss) -> the sum
// over the labelled tokens, a scalar in fp32, the same on every rank of the group. Whoever calls
// divides by the count of the whole global batch.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const at::Tensor& labels,
                             const VocabShard& shard, SegmentRun& run);

}  // namespace moetron
