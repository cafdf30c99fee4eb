#include "moetron/moe/permutation.h"

#include <algorithm>

#include <ATen/ATen.h>

namespace moetron {
namespace {

std::vector<int64_t> to_host(const at::Tensor& counts) {
  const at::Tensor host = counts.cpu();
  const int64_t* first = host.const_data_ptr<int64_t>();
  return {first, first + host.numel()};
}

}  // namespace

Permutation::Permutation(const at::Tensor& experts, const DispatcherSettings& settings,
                         bool all_here)
    : num_copies_(experts.size(0)), top_k_(experts.size(1)) {
  const at::NoGradGuard no_grad;
  if (settings.operators == Operators::kPlain || settings.rows_at_least > 0 ||
      !has_row_map(experts)) {
    sort_on_host(experts, settings);
    return;
  }
  const ExpertLayout& layout = settings.layout;
  map_ = build_row_map(experts, layout.first_local(), layout.num_local(), settings.alignment);
  rows_per_expert_.ends = map_->ends;
  is_filled_ = settings.alignment > 1;
  num_rows_ = all_here ? map_->choice_of_row.size(0) : map_->ends[-1].item<int32_t>();
}

// On CPUs, by plain operators, and wherever experts are filled up to a number of rows.
void Permutation::sort_on_host(const at::Tensor& experts, const DispatcherSettings& settings) {
  const ExpertLayout& layout = settings.layout;
  const int64_t num_local = layout.num_local();
  const at::Tensor local = experts.reshape(-1) - layout.first_local();  // [copies * K]
  const at::Tensor is_elsewhere = local.lt(0).logical_or_(local.ge(num_local));
  // Choices of other ranks come last in the order, and are cut off.
  const at::Tensor keys = local.masked_fill(is_elsewhere, num_local);
  const std::vector<int64_t> counts = to_host(at::bincount(keys, {}, num_local + 1));
  std::vector<int32_t> ends;
  int64_t num_own = 0;
  for (int64_t e = 0; e < num_local; ++e) {
    num_own += counts[e];
    const int64_t wanted = std::max(counts[e], settings.rows_at_least);
    const int64_t alignment = settings.alignment;
    rows_per_expert_.counts.push_back((wanted + alignment - 1) / alignment * alignment);
    num_rows_ += rows_per_expert_.counts.back();
    ends.push_back(static_cast<int32_t>(num_rows_));
  }
  rows_per_expert_.ends = at::tensor(ends, at::kInt).to(experts.device());
  const at::Tensor order = std::get<1>(
      at::sort(keys, /*stable=*/std::optional<bool>(true), /*dim=*/0, /*descending=*/false));
  choice_of_row_ = order.narrow(0, 0, num_own);
  at::Tensor place = at::arange(num_own, order.options());
  is_filled_ = num_rows_ > num_own;
  if (is_filled_) {
    // Each expert's rows begin behind the filled-up rows of those before it.
    int64_t first = 0, shift = 0;
    for (int64_t e = 0; e < num_local; ++e) {
      place.narrow(0, first, counts[e]).add_(shift);
      first += counts[e];
      shift += rows_per_expert_.counts[e] - counts[e];
    }
  }
  place_of_row_ = place;
  is_dense_ = num_own == num_copies_ * top_k_;
  row_of_choice_ = at::full({num_copies_ * top_k_}, num_rows_, order.options());
  row_of_choice_.index_copy_(0, choice_of_row_, place);
}

at::Tensor Permutation::placed(const at::Tensor& own_rows) const {
  if (!is_filled_) return own_rows;
  std::vector<int64_t> sizes = own_rows.sizes().vec();
  sizes[0] = num_rows_;
  return at::zeros(sizes, own_rows.options()).index_copy_(0, place_of_row_, own_rows);
}

Value Permutation::rows_of(const Value& copies) const {
  Value rows{.data = gather(copies.data), .layout = rows_per_expert_};
  if (copies.scales.defined()) rows.scales = gather(copies.scales);
  return rows;
}

at::Tensor Permutation::gather(const at::Tensor& x) const {
  if (map_) return gather_rows(x, map_->row_of_choice, num_rows_, /*zeros=*/is_filled_);
  return placed(x.index_select(0, choice_of_row_.floor_divide(top_k_)));
}

at::Tensor Permutation::gather_choices(const at::Tensor& probabilities) const {
  if (map_) return moetron::gather_choices(probabilities, map_->choice_of_row, num_rows_);
  return placed(probabilities.reshape(-1).index_select(0, choice_of_row_));
}

at::Tensor Permutation::sum(const at::Tensor& rows) const {
  if (map_) return sum_rows(rows, map_->row_of_choice);
  // A row of zeros behind the others stands for choices that are not here.
  const at::Tensor padded = is_dense_ ? rows : at::constant_pad_nd(rows, {0, 0, 0, 1});
  return padded.index_select(0, row_of_choice_)
      .view({num_copies_, top_k_, rows.size(1)})
      .sum(1, /*keepdim=*/false, at::kFloat)
      .to(rows.dtype());  // [copies, hidden]
}

at::Tensor Permutation::scatter_choices(const at::Tensor& d_probabilities) const {
  if (map_) return moetron::scatter_choices(d_probabilities, map_->row_of_choice);
  const at::Tensor padded =
      is_dense_ ? d_probabilities : at::constant_pad_nd(d_probabilities, {0, 1});
  return padded.index_select(0, row_of_choice_).view({num_copies_, top_k_});
}

}  // namespace moetron
