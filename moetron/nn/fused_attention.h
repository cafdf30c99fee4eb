// Causal attention by a fused kernel, with a backward that keeps no more than q, k, v, the output
// and one number a query and head: autograd would keep what the kernel was given, many times the
// keys and values where heads share them. Shapes as in nn/attention.h.
#pragma once

#include <optional>

#include <ATen/core/Tensor.h>

#include "moetron/parallel/micro_batch.h"

namespace moetron {

class SegmentRun;

// The width of all heads for a kernel that wants one: the queries', or the values' where those are
// wider.
int64_t common_width(const at::Tensor& q, const at::Tensor& v);

// x [B, T, heads, width] as kernels take it, [B, heads * repeats, T, width]: keys and values
// repeated for their query heads and widened with zeros where a kernel wants equal head counts or
// widths. Zeros behind queries and keys add nothing to their products, those behind the values give
// zeros.
at::Tensor heads_first(const at::Tensor& x, int64_t repeats, int64_t width);

// Whose attention causal_attention() takes where it may be the fastest, in words.
const char* fastest_attention_name(const at::Tensor& q, const at::Tensor& v);

// On a CPU always; on a GPU in bf16, of values no wider than queries.
bool has_fused_attention(const at::Tensor& q, const at::Tensor& v);

// Whether fused_attention() takes documents: where cuDNN has the widths.
bool has_packed_attention(const at::Tensor& q, const at::Tensor& v);

// q [B, T, N, D], k [B, T, G, D], v [B, T, G, V] -> [B, T, N, V]; `documents` undefined, or in one
// kernel for all of them (has_packed_attention()). On a GPU by cuDNN where it has
// the widths (kernels/attention.h; DeepSeek's 192 and 128 among them), else by FlashAttention-2.
at::Tensor fused_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const DocumentBounds& documents, double softmax_scale, SegmentRun& run);

}  // namespace moetron
