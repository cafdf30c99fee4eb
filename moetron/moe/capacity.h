// Capacity: a bound on the rows of an expert, beyond which choices are dropped (Lepikhin et al.,
// GShard, arXiv 2006.16668).
#pragma once

#include <cstdint>

#include "moetron/config/choices.h"
#include "moetron/parallel/token_layout.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

// Rows of an expert for a micro-batch of `tokens`: ceil(tokens * top_k / num_experts * factor), at
// least 1 and at most `tokens`, since a token chooses an expert once.
int64_t expert_capacity(int64_t tokens, int64_t top_k, int64_t num_experts, double factor);

// experts [slice, K] int64 and probabilities [slice, K] of this rank's slice -> experts, with
// kNotRouted where more than `capacity` choices of the whole micro-batch go to one expert: those of
// the largest probability stay (kProbs; among equals the earlier), or the first (kPosition), in the
// order of tokens and slots. The same on every layout; collective over the slices' group.
at::Tensor drop_over_capacity(const at::Tensor& experts, const at::Tensor& probabilities,
                              const TokenLayout& layout, int64_t num_experts, int64_t capacity,
                              TokenDropPolicy policy);

}  // namespace moetron
