// Cross-entropy of next-token prediction, over a vocabulary that tensor-parallel ranks divide.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/nn/embedding.h"

namespace moetron {

class Parameter;

constexpr int64_t kIgnoredLabel = -100;

// What is asked of each token.
struct TokenLabels {
  at::Tensor labels;   // [tokens] int64, kIgnoredLabel: no loss
  at::Tensor weights;  // [tokens] fp32, of each loss; undefined: 1
};

// logits [tokens, rows of the shard] -> the weighted sum over the labelled tokens, a scalar in
// fp32, the same on every rank of the group. Whoever calls divides by the weight of the whole
// global batch.
at::Tensor cross_entropy_sum(const at::Tensor& logits, const TokenLabels& wanted,
                             const VocabShard& shard, SegmentRun& run);

// The log-probability of each token's label, [tokens] fp32, 0 without one; the same on every rank
// of the group. Their gradient may be any.
at::Tensor label_log_probabilities(const at::Tensor& logits, const at::Tensor& labels,
                                   const VocabShard& shard, SegmentRun& run);

// Whether there are kernels for the next function: bf16 on a GPU.
bool has_linear_cross_entropy(const at::Tensor& hidden);

// The same of hidden [tokens, hidden] and the head's weight [vocab, hidden] on one rank, some
// tokens at a time, so that the logits of all never exist. With gradients, those of `hidden` and of
// the weight are computed at once, for the gradient `d_loss` that the backward will give to the
// sum.
at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden, Parameter& weight,
                                    const TokenLabels& wanted, double d_loss, SegmentRun& run);

}  // namespace moetron
