// Tokens to rows and back: the local part of every dispatcher. What arrived are copies of tokens,
// each with some choices of experts; every choice of an expert that is here becomes a row.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/moe/expert_layout.h"

namespace moetron {

class Permutation {
 public:
  Permutation() = default;
  // experts [copies, K] int64, global numbers or kNotRouted; those of other ranks do not count.
  // Rows are sorted by local expert, then by copy and slot. An expert with fewer than
  // `rows_at_least` rows is filled up with rows of zeros behind its own.
  Permutation(const at::Tensor& experts, const ExpertLayout& layout, int64_t rows_at_least);

  const std::vector<int64_t>& rows_per_expert() const { return rows_per_expert_; }

  // hidden [copies, hidden] -> [rows, hidden], zero in filled-up rows.
  at::Tensor gather(const at::Tensor& hidden) const;
  // probabilities [copies, K] fp32 -> [rows], zero in filled-up rows.
  at::Tensor gather_choices(const at::Tensor& probabilities) const;
  // rows [rows, hidden] -> [copies, hidden]: a copy's rows, added in fp32 in the order of its
  // slots.
  at::Tensor sum(const at::Tensor& rows) const;
  // d_probabilities [rows] -> [copies, K], zero where the expert is not here.
  at::Tensor scatter_choices(const at::Tensor& d_probabilities) const;

 private:
  at::Tensor placed(const at::Tensor& own_rows) const;  // with the filled-up rows between

  int64_t num_copies_ = 0;
  int64_t top_k_ = 0;
  int64_t num_rows_ = 0;      // filled-up ones included
  bool is_filled_ = false;    // some expert is filled up
  bool is_dense_ = false;     // every choice is a row here
  at::Tensor choice_of_row_;  // [own rows], copy * K + slot
  at::Tensor place_of_row_;   // [own rows], the row's number among all rows
  at::Tensor row_of_choice_;  // [copies * K], the row's number; num_rows_ where it is not here
  std::vector<int64_t> rows_per_expert_;
};

}  // namespace moetron
