// The operations of kernels/heads.h in the graph of a segment: what stands between projections and
// attention for bf16 on a GPU. Letters in shapes as in nn/attention.h.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/kernels/heads.h"

namespace moetron {

class Parameter;
class SegmentRun;

struct QueriesKeysValues {
  at::Tensor queries;
  at::Tensor keys;
  at::Tensor values;
};

// qkv [B, T, N + 2 G, D], queries first -> queries [B, T, N, D], keys [B, T, G, D], both normed
// where there are norms (both or neither) and rotated, and values, a view of qkv.
QueriesKeysValues norm_and_rotate(const at::Tensor& qkv, int64_t num_heads, Parameter* q_norm,
                                  Parameter* k_norm, double eps, const Rotation& rotation,
                                  SegmentRun& run);

// Rotates the last `rotated` elements of each head of q [B, T, N, D], whose memory it takes over:
// nobody else may read q, or what the result's gradient arrives in.
at::Tensor rotate_queries(const at::Tensor& q, int64_t rotated, const Rotation& rotation,
                          SegmentRun& run);

// up [B, T, N, nope + V], k_rope [B, T, 1, rope] -> keys [B, T, N, nope + rope], values [B, T, N,
// V]; `queries` is undefined.
QueriesKeysValues join_latent_keys(const at::Tensor& up, const at::Tensor& k_rope, int64_t nope,
                                   const Rotation& rotation, SegmentRun& run);

// x [rows, columns] -> views of its columns; the gradients are put side by side again in one copy.
std::vector<at::Tensor> split_columns(const at::Tensor& x, const std::vector<int64_t>& widths,
                                      SegmentRun& run);

}  // namespace moetron
