// Tokens to rows and back on a GPU, without a sort and without the host: every choice of a local
// expert becomes a row; rows are sorted by expert, then by token and slot.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace moetron {

// Whether the functions below take these choices: on a GPU, and a build with CUDA. They move rows
// of bf16 and fp32, gather_rows also of bytes, of a whole number of 16 bytes or not.
bool has_row_map(const at::Tensor& experts);

struct RowMap {
  at::Tensor ends;           // [local experts] int32, where each expert's rows end
  at::Tensor choice_of_row;  // [bound] int32, copy * K + slot; -1 where a row is no choice
  at::Tensor row_of_choice;  // [copies, K] int32; -1 where the choice is no row here
};

// experts [copies, K] int64, global numbers or negative; the local ones are [first, first + count),
// at most 1024. The order is a stable one: the same on every run. Each expert's rows end, and the
// next one's begin, at a multiple of `alignment`; `bound` rows are enough for any choices.
RowMap build_row_map(const at::Tensor& experts, int64_t first, int64_t count,
                     int64_t alignment = 1);

// hidden [copies, hidden] -> [rows, hidden], for the map's first `rows` rows; rows that are no
// choice are zero if `zeros`, else as they were allocated. Each copy is read once, for all its
// rows.
at::Tensor gather_rows(const at::Tensor& hidden, const at::Tensor& row_of_choice, int64_t rows,
                       bool zeros = false);
// values [copies, K] fp32 -> [rows], zero in rows that are no choice
at::Tensor gather_choices(const at::Tensor& values, const at::Tensor& choice_of_row, int64_t rows);
// rows [rows, hidden] -> [copies, hidden]: each copy's rows, added in fp32 in the order of slots.
at::Tensor sum_rows(const at::Tensor& rows, const at::Tensor& row_of_choice);
// values [rows] fp32 -> [copies, K], zero where the choice is no row.
at::Tensor scatter_choices(const at::Tensor& values, const at::Tensor& row_of_choice);

}  // namespace moetron
