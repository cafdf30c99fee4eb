#include "moetron/moe/grouped_product.h"

#include <numeric>

#include <ATen/ATen.h>

#include "moetron/nn/linear.h"

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

// What at::_grouped_mm asks of its operands: rows that begin at multiples of 16 bytes.
bool is_aligned(const at::Tensor& x) {
  const auto bytes = static_cast<int64_t>(x.element_size());
  return x.is_contiguous() && x.size(-1) * bytes % 16 == 0 &&
         reinterpret_cast<uintptr_t>(x.data_ptr()) % 16 == 0;
}

bool fits(const RowGroups& groups, const at::Tensor& a, const at::Tensor& b) {
  return groups.grouped && a.size(0) > 0 && is_aligned(a) && is_aligned(b);
}

}  // namespace

RowGroups::RowGroups(std::vector<int64_t> rows_of_each, bool in_one_product, c10::Device device)
    : rows_per_expert(std::move(rows_of_each)), grouped(in_one_product) {
  if (!grouped) return;
  std::vector<int32_t> sums(rows_per_expert.size());
  std::partial_sum(rows_per_expert.begin(), rows_per_expert.end(), sums.begin());
  ends = at::tensor(sums, at::kInt).to(device);
}

at::Tensor grouped_product(const at::Tensor& x, const at::Tensor& weight, const RowGroups& groups) {
  if (fits(groups, x, weight)) return at::_grouped_mm(x, weight.transpose(1, 2), groups.ends);
  at::Tensor y = at::empty({x.size(0), weight.size(1)}, x.options());
  for_each_group(groups.rows_per_expert, [&](int64_t expert, int64_t first, int64_t rows) {
    at::Tensor part = y.narrow(0, first, rows);
    at::mm_out(part, x.narrow(0, first, rows), weight[expert].t());
  });
  return y;
}

at::Tensor grouped_product_transposed(const at::Tensor& d_y, const at::Tensor& weight,
                                      const RowGroups& groups) {
  if (fits(groups, d_y, weight)) return at::_grouped_mm(d_y, weight, groups.ends);
  at::Tensor d_x = at::empty({d_y.size(0), weight.size(2)}, d_y.options());
  for_each_group(groups.rows_per_expert, [&](int64_t expert, int64_t first, int64_t rows) {
    at::Tensor part = d_x.narrow(0, first, rows);
    at::mm_out(part, d_y.narrow(0, first, rows), weight[expert]);
  });
  return d_x;
}

void add_grouped_weight_grad(const at::Tensor& accumulator, const at::Tensor& d_y,
                             const at::Tensor& x, const RowGroups& groups) {
  if (fits(groups, d_y, x)) {
    accumulator.add_(at::_grouped_mm(d_y.t(), x, groups.ends));  // [experts, out, in]
    return;
  }
  for_each_group(groups.rows_per_expert, [&](int64_t expert, int64_t first, int64_t rows) {
    add_weight_grad(accumulator[expert], d_y.narrow(0, first, rows), x.narrow(0, first, rows));
  });
}

}  // namespace moetron
