// Tensor parallelism with sequence parallelism (Korthikanti et al., arXiv 2205.05198): between the
// linears that tensor-parallel ranks share, each rank holds an equal slice of the micro-batch's
// tokens. Before a column-wise linear the slices are gathered; behind a row-wise one the partial
// sums are reduced and scattered. One operation is the other's backward.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"

namespace moetron {

class SegmentRun;

// How the tokens of one micro-batch lie on the ranks of a tensor-parallel group. Every rank holds
// slice_size() rows; those beyond the last token are padding, on the last ranks, and zero in every
// gradient.
struct TokenShards {
  Communicator* group = nullptr;  // null: one rank holds them all
  int64_t num_tokens = 0;

  int64_t size() const { return group == nullptr ? 1 : group->size(); }
  int64_t rank() const { return group == nullptr ? 0 : group->rank(); }
  int64_t slice_size() const { return (num_tokens + size() - 1) / size(); }
  int64_t slice_begin() const { return rank() * slice_size(); }  // may lie behind the last token
  // Tokens of this rank's slice, without padding.
  int64_t num_local() const;
};

// Without a graph: x [slice, ...] -> [tokens, ...].
at::Tensor gather_tokens(const at::Tensor& x, const TokenShards& shards);
// x [tokens, ...], each rank's partial sums -> [slice, ...], summed.
at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenShards& shards);
// x [tokens, ...], equal on every rank -> this rank's [slice, ...], padded with zeros.
at::Tensor slice_tokens(const at::Tensor& x, const TokenShards& shards);

// In the graph: gather_tokens, whose backward is reduce_scatter_tokens.
at::Tensor gather_tokens(const at::Tensor& x, const TokenShards& shards, SegmentRun& run);
// In the graph: reduce_scatter_tokens, whose backward is gather_tokens.
at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenShards& shards, SegmentRun& run);
// x [tokens, features / size] -> [tokens, features], the ranks' features side by side; its backward
// sums the ranks' partial gradients and takes this rank's features.
at::Tensor gather_features(const at::Tensor& x, const TokenShards& shards, SegmentRun& run);

}  // namespace moetron
