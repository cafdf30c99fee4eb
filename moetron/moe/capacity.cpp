#include "moetron/moe/capacity.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>

namespace moetron {
namespace {

at::Tensor stable_order(const at::Tensor& keys, bool descending) {
  return std::get<1>(at::sort(keys, /*stable=*/std::optional<bool>(true), /*dim=*/0, descending));
}

}  // namespace

int64_t expert_capacity(int64_t tokens, int64_t top_k, int64_t num_experts, double factor) {
  // Rounding must not add a row to what comes out whole: 10 rows times 1.1 are 11.
  const double rows = static_cast<double>(tokens * top_k) * factor;
  const double capacity = std::ceil(rows / static_cast<double>(num_experts) * (1 - 1e-12));
  // In floating point, where no factor is too large.
  const double most = static_cast<double>(tokens);
  return std::max<int64_t>(1, static_cast<int64_t>(std::min(capacity, most)));
}

at::Tensor drop_over_capacity(const at::Tensor& experts, const at::Tensor& probabilities,
                              const TokenLayout& layout, int64_t num_experts, int64_t capacity,
                              TokenDropPolicy policy) {
  const at::NoGradGuard no_grad;
  const at::Tensor all = gather_tokens(experts, layout);  // [tokens, K]
  const at::Tensor flat = all.reshape(-1);                // [choices]
  // Choices by expert, and within an expert the ones that stay first.
  at::Tensor order = at::arange(flat.size(0), flat.options());
  if (policy == TokenDropPolicy::kProbs) {
    order = stable_order(gather_tokens(probabilities, layout).reshape(-1), /*descending=*/true);
  }
  const at::Tensor key = flat.index_select(0, order);
  const at::Tensor by_expert = stable_order(key, /*descending=*/false);
  const at::Tensor sorted = key.index_select(0, by_expert);
  // A choice's place among those of its expert; kNotRouted sorts before the first.
  const at::Tensor counts = at::zeros({num_experts + 1}, sorted.options())
                                .index_add_(0, sorted.add(1), at::ones_like(sorted));
  const at::Tensor first = counts.cumsum(0).sub(counts).index_select(0, sorted.add(1));
  const at::Tensor place = at::arange(sorted.size(0), sorted.options()).sub(first);
  const at::Tensor kept = sorted.masked_fill(place.ge(capacity), kNotRouted);
  at::Tensor result = at::empty_like(flat);
  result.index_copy_(0, order.index_select(0, by_expert), kept);
  at::Tensor mine = slice_tokens(result.view(all.sizes()), layout);
  const int64_t padding = mine.size(0) - layout.num_local();
  if (padding > 0) mine.narrow(0, layout.num_local(), padding).fill_(kNotRouted);
  return mine;
}

}  // namespace moetron
