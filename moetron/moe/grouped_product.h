// Products of rows that are sorted by expert with the experts' stacked weights: all experts in one
// grouped product, or one after the other.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// How the rows are divided among the experts, and how their products are computed.
struct RowGroups {
  RowGroups(std::vector<int64_t> rows_of_each, bool in_one_product, c10::Device device);

  std::vector<int64_t> rows_per_expert;
  bool grouped;
  at::Tensor ends;  // [experts] int32, where each expert's rows end; undefined unless grouped
};

// x [rows, in], weight [experts, out, in] -> [rows, out]: rows of expert e times weight[e]^T.
at::Tensor grouped_product(const at::Tensor& x, const at::Tensor& weight, const RowGroups& groups);

// d_y [rows, out], weight [experts, out, in] -> [rows, in]: rows of expert e times weight[e].
at::Tensor grouped_product_transposed(const at::Tensor& d_y, const at::Tensor& weight,
                                      const RowGroups& groups);

// Adds d_y^T x of each expert's rows to accumulator [experts, out, in] (fp32).
void add_grouped_weight_grad(const at::Tensor& accumulator, const at::Tensor& d_y,
                             const at::Tensor& x, const RowGroups& groups);

}  // namespace moetron
