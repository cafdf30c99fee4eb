#include "moetron/moe/grouped_product.h"

#include <numeric>

#include <ATen/ATen.h>

#include "moetron/kernels/product.h"

namespace moetron {
namespace {

// Calls visit(expert, first_row, rows) for every expert that has rows.
template <class Visit>
void for_each_group(const std::vector<int64_t>& rows_per_expert, Visit visit) {
  int64_t first = 0;
  for (size_t expert = 0; expert < rows_per_expert.size(); ++expert) {
    const int64_t rows = rows_per_expert[expert];
    if (rows > 0) visit(static_cast<int64_t>(expert), first, rows);
    first += rows;
  }
}

// What grouped products ask of their operands: rows that begin at multiples of 16 bytes.
bool is_aligned(const at::Tensor& x) {
  const auto bytes = static_cast<int64_t>(x.element_size());
  return x.is_contiguous() && x.size(-1) * bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0;
}

bool fits(const RowGroups& groups, const at::Tensor& a, const at::Tensor& b) {
  return groups.grouped() && a.size(0) > 0 && is_aligned(a) && is_aligned(b);
}

}  // namespace

const std::vector<int64_t>& RowGroups::counts() const {
  if (rows_.counts.empty()) {
    const at::Tensor ends = rows_.ends.cpu();
    const int32_t* first = ends.const_data_ptr<int32_t>();
    rows_.counts.assign(first, first + ends.numel());
    std::adjacent_difference(rows_.counts.begin(), rows_.counts.end(), rows_.counts.begin());
  }
  return rows_.counts;
}

at::Tensor grouped_product(const at::Tensor& x, const at::Tensor& weight, const RowGroups& groups) {
  if (fits(groups, x, weight)) {
    return grouped_rows_product(x, weight, groups.ends(), /*transpose_weight=*/true);
  }
  at::Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
  for_each_group(groups.counts(), [&](int64_t expert, int64_t first, int64_t rows) {
    at::Tensor part = y.narrow(0, first, rows);
    at::mm_out(part, x.narrow(0, first, rows), weight[expert].t());
  });
  return y;
}

at::Tensor grouped_product_transposed(const at::Tensor& d_y, const at::Tensor& weight,
                                      const RowGroups& groups) {
  if (fits(groups, d_y, weight)) {
    return grouped_rows_product(d_y, weight, groups.ends(), /*transpose_weight=*/false);
  }
  at::Tensor d_x = at::empty({d_y.size(0), weight.size(2)}, d_y.options());
  for_each_group(groups.counts(), [&](int64_t expert, int64_t first, int64_t rows) {
    at::Tensor part = d_x.narrow(0, first, rows);
    at::mm_out(part, d_y.narrow(0, first, rows), weight[expert]);
  });
  return d_x;
}

void add_grouped_weight_grad(const Parameter::GradTarget& grad, const at::Tensor& d_y,
                             const at::Tensor& x, const RowGroups& groups) {
  if (fits(groups, d_y, x)) {
    if (has_grouped_weight_grad(d_y, x)) {
      return grouped_weight_grad_product(grad.sum, d_y, x, groups.ends(), grad.adds);
    }
    const at::Tensor product = at::_grouped_mm(d_y.t(), x, groups.ends());  // [experts, out, in]
    grad.adds ? grad.sum.add_(product) : grad.sum.copy_(product);
    return;
  }
  int64_t first = 0;
  for (size_t expert = 0; expert < groups.counts().size(); ++expert) {
    const int64_t rows = groups.counts()[expert];
    const at::Tensor sum = grad.sum[static_cast<int64_t>(expert)];
    if (rows > 0) {
      weight_grad_product(sum, d_y.narrow(0, first, rows), x.narrow(0, first, rows), grad.adds,
                          groups.operators());
    } else if (!grad.adds) {
      sum.zero_();
    }
    first += rows;
  }
}

}  // namespace moetron
