// Which tokens of a micro-batch a rank holds. Under tensor parallelism with sequence parallelism
// (Korthikanti et al., arXiv 2205.05198), between the linears that tensor-parallel ranks share,
// each rank holds an equal slice of the micro-batch's tokens. Before a column-wise linear the
// slices are gathered; behind a row-wise one the partial sums are reduced and scattered. One
// operation is the other's backward.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/comm/communicator.h"

namespace moetron {

class SegmentRun;

// Tokens [begin, begin + count) of a micro-batch, its sequences one after the other.
struct TokenStretch {
  int64_t begin = 0;
  int64_t count = 0;
};

// How the tokens of one micro-batch lie on the ranks of a tensor-parallel group. Every rank holds
// slice_size() rows: its stretches in their order, then, where it has fewer tokens than another,
// rows that are none, which are zero in every gradient and count nowhere.
struct TokenLayout {
  TokenLayout() = default;
  // Slices in the order of the ranks. `group` null: one rank holds them all.
  TokenLayout(Communicator* tensor_group, int64_t tokens);
  // The stretches of every rank, in any order: each token is in one (InternalError otherwise).
  // `device`: of what is to be gathered. What is gathered is brought into the micro-batch's order
  // by one copy, unless the slices are in the order of the ranks.
  TokenLayout(Communicator* tensor_group, std::vector<std::vector<TokenStretch>> of_ranks,
              c10::Device device);

  Communicator* group = nullptr;
  int64_t num_tokens = 0;               // of the whole micro-batch
  int64_t rows_of_rank = 0;             // the same on every rank
  std::vector<TokenStretch> stretches;  // of this rank; none: it holds nothing but rows beyond
  // [tokens] int64 on the device: where each token is among the rows of all ranks, one rank after
  // the other; undefined: in the order of the tokens.
  at::Tensor row_of_token;

  int64_t size() const { return group == nullptr ? 1 : group->size(); }
  int64_t rank() const { return group == nullptr ? 0 : group->rank(); }
  int64_t slice_size() const { return rows_of_rank; }
  int64_t num_local() const;  // tokens of this rank's slice
  // [num_local] int64: which token of the micro-batch each row is.
  at::Tensor token_of_row(c10::Device device) const;
};

// Without a graph: x [slice, ...] -> [tokens, ...].
at::Tensor gather_tokens(const at::Tensor& x, const TokenLayout& layout);
// x [tokens, ...], each rank's partial sums -> [slice, ...], summed.
at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenLayout& layout);
// x [tokens, ...], equal on every rank -> this rank's [slice, ...], padded with zeros.
at::Tensor slice_tokens(const at::Tensor& x, const TokenLayout& layout);

// In the graph: gather_tokens, whose backward is reduce_scatter_tokens.
at::Tensor gather_tokens(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run);
// In the graph: reduce_scatter_tokens, whose backward is gather_tokens.
at::Tensor reduce_scatter_tokens(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run);
// x [tokens, features / size] -> [tokens, features], the ranks' features side by side; its backward
// sums the ranks' partial gradients and takes this rank's features.
at::Tensor gather_features(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run);

}  // namespace moetron
