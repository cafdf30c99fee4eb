// Causal attention on a GPU by cuDNN (its own FlashAttention, Dao, arXiv 2307.08691): tensors are
// bf16 [B, T, heads, width] with any strides, k and v may have fewer heads than q (grouped
// queries), v its own width. Only in builds with CUDA.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

namespace moetron {

// Whether cuDNN has kernels, forward and backward, for these: bf16 on a GPU, more than one token,
// widths that are multiples of 8 and at most 128, or DeepSeek's 192 for q and k with 128 for v.
bool has_attention(const at::Tensor& q, const at::Tensor& v);

// Documents that fill the B * T tokens one behind the other: a token sees those of its own.
struct PackedDocuments {
  at::Tensor bounds;    // int32 [documents + 1] on the GPU: where each begins, and the last ends
  int64_t longest = 0;  // tokens; none reaches over the end of a sequence
};

struct AttentionResult {
  at::Tensor mixed;  // [B, T, N, V], contiguous
  at::Tensor
      log_sums;  // fp32 [B, N, T], packed [1, N, B * T]: the logarithm of each softmax's divisor
};

struct AttentionGrads {
  at::Tensor d_q, d_k, d_v;  // contiguous
};

// q [B, T, N, D], k [B, T, G, D], v [B, T, G, V]. A shape starts with cuDNN's favourite kernel; the
// second time, the likeliest ones are tried on the spot, waiting for the GPU, and the fastest
// stays. The favourite stays where `deterministic`, so that every run has the same bits, and for
// packed documents, whose plans are made for the next power of two of their number (16 at least).
AttentionResult attention_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  double softmax_scale, bool deterministic,
                                  const std::optional<PackedDocuments>& documents = {});

// Of the forward's tensors and d_mixed [B, T, N, V]. Where `deterministic`, every sum has one
// order: cuDNN then writes 2 bytes a pair of query and key, so that a part of the heads goes at a
// time where those of all would take more than 4 GiB. `documents` as in the forward.
AttentionGrads attention_backward(const at::Tensor& d_mixed, const at::Tensor& q,
                                  const at::Tensor& k, const at::Tensor& v,
                                  const AttentionResult& output, double softmax_scale,
                                  bool deterministic,
                                  const std::optional<PackedDocuments>& documents = {});

}  // namespace moetron
