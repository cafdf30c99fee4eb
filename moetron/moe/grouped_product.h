// Products of rows that are sorted by expert with the experts' stacked weights: all experts in one
// grouped product, or one after the other.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/kernels/operators.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

// How the rows are divided among the experts, and how their products are computed.
class RowGroups {
 public:
  // Plain operators take one expert after the other in any case.
  RowGroups(ExpertRows rows, bool in_one_product, Operators operators = Operators::kFastest)
      : rows_(std::move(rows)),
        grouped_(in_one_product && operators == Operators::kFastest),
        operators_(operators) {}

  bool grouped() const { return grouped_; }
  Operators operators() const { return operators_; }
  // [experts] int32 on the device, where each expert's rows end.
  const at::Tensor& ends() const { return rows_.ends; }
  // Waits for the device where it alone knows.
  const std::vector<int64_t>& counts() const;

 private:
  mutable ExpertRows rows_;
  bool grouped_;
  Operators operators_;
};

// x [rows, in], weight [experts, out, in] -> [rows, out]: rows of expert e times weight[e]^T.
at::Tensor grouped_product(const at::Tensor& x, const at::Tensor& weight, const RowGroups& groups);

// d_y [rows, out], weight [experts, out, in] -> [rows, in]: rows of expert e times weight[e].
at::Tensor grouped_product_transposed(const at::Tensor& d_y, const at::Tensor& weight,
                                      const RowGroups& groups);

// d_y^T x of each expert's rows to the gradient [experts, out, in].
void add_grouped_weight_grad(const Parameter::GradTarget& grad, const at::Tensor& d_y,
                             const at::Tensor& x, const RowGroups& groups);

}  // namespace moetron
