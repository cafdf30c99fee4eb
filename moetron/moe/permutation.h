// Tokens to rows and back: the local part of every dispatcher. What arrived are copies of tokens,
// each with some choices of experts; every choice of an expert that is here becomes a row.
#pragma once

#include <cstdint>
#include <optional>

#include <ATen/core/Tensor.h>

#include "moetron/kernels/row_map.h"
#include "moetron/moe/dispatchers.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

class Permutation {
 public:
  Permutation() = default;
  // experts [copies, K] int64, global numbers or kNotRouted; those of other ranks do not count.
  // Rows are sorted by local expert, then by copy and slot. An expert with fewer rows than the
  // settings ask for is filled up with rows of zeros behind its own. With `all_here` every choice
  // is one of a local expert: a GPU need not be waited for then.
  Permutation(const at::Tensor& experts, const DispatcherSettings& settings, bool all_here = false);

  // Data and scales of copies -> those of the rows, whose layout says where each expert's are.
  Value rows_of(const Value& copies) const;
  // x [copies, width] -> [rows, width], zero in filled-up rows. `rows` is a bound: it may exceed
  // the last expert's end under `all_here`.
  at::Tensor gather(const at::Tensor& x) const;
  // probabilities [copies, K] fp32 -> [rows], zero in filled-up rows.
  at::Tensor gather_choices(const at::Tensor& probabilities) const;
  // rows [rows, hidden] -> [copies, hidden]: a copy's rows, added in fp32 in the order of its
  // slots.
  at::Tensor sum(const at::Tensor& rows) const;
  // d_probabilities [rows] -> [copies, K], zero where the expert is not here.
  at::Tensor scatter_choices(const at::Tensor& d_probabilities) const;

 private:
  void sort_on_host(const at::Tensor& experts, const DispatcherSettings& settings);
  at::Tensor placed(const at::Tensor& own_rows) const;  // with the filled-up rows between

  int64_t num_copies_ = 0;
  int64_t top_k_ = 0;
  int64_t num_rows_ = 0;       // filled-up ones included
  bool is_filled_ = false;     // some expert is filled up
  bool is_dense_ = false;      // every choice is a row here
  at::Tensor choice_of_row_;   // [own rows], copy * K + slot
  at::Tensor place_of_row_;    // [own rows], the row's number among all rows
  at::Tensor row_of_choice_;   // [copies * K], the row's number; num_rows_ where it is not here
  std::optional<RowMap> map_;  // on a GPU, instead of the three
  ExpertRows rows_per_expert_;
};

}  // namespace moetron
