#include "moetron/moe/local_dispatcher.h"

#include <ATen/ATen.h>

namespace moetron {
namespace {

// A token's choice (token, slot) has the number token * K + slot.
struct LocalPlan final : DispatchPlan {
  at::Tensor token_of_row;   // [rows]
  at::Tensor row_of_choice;  // [tokens * K], the inverse of the sort by expert
  int64_t top_k = 0;
};

const LocalPlan& local(const DispatchPlan& plan) {
  return dynamic_cast<const LocalPlan&>(plan);
}

// [rows, hidden] -> [tokens, hidden]: a token's rows added in the order of its choices, in fp32.
at::Tensor sum_choices(const at::Tensor& rows, const LocalPlan& plan) {
  return rows.index_select(0, plan.row_of_choice)
      .view({-1, plan.top_k, rows.size(1)})
      .sum(1, /*keepdim=*/false, at::kFloat)
      .to(rows.dtype());
}

}  // namespace

Dispatched LocalDispatcher::dispatch(const at::Tensor& hidden, const Routing& routing) {
  const at::Tensor choices = routing.experts.reshape(-1);  // [tokens * K]
  const at::Tensor order = std::get<1>(
      at::sort(choices, /*stable=*/std::optional<bool>(true), /*dim=*/0, /*descending=*/false));
  auto plan = std::make_shared<LocalPlan>();
  plan->top_k = routing.experts.size(1);
  plan->token_of_row = order.floor_divide(plan->top_k);
  plan->row_of_choice = at::empty_like(order);
  plan->row_of_choice.index_copy_(0, order, at::arange(order.size(0), order.options()));

  Dispatched out;
  out.rows = hidden.index_select(0, plan->token_of_row);
  out.probabilities = routing.probabilities.reshape(-1).index_select(0, order);
  const at::Tensor counts = at::bincount(choices, {}, num_experts_);
  out.rows_per_expert.assign(counts.data_ptr<int64_t>(), counts.data_ptr<int64_t>() + num_experts_);
  out.plan = std::move(plan);
  return out;
}

at::Tensor LocalDispatcher::combine(const at::Tensor& rows, const DispatchPlan& plan) {
  return sum_choices(rows, local(plan));
}

at::Tensor LocalDispatcher::combine_backward(const at::Tensor& d_hidden, const DispatchPlan& plan) {
  return d_hidden.index_select(0, local(plan).token_of_row);
}

DispatchGrads LocalDispatcher::dispatch_backward(const at::Tensor& d_rows,
                                                 const at::Tensor& d_probabilities,
                                                 const DispatchPlan& plan) {
  const LocalPlan& p = local(plan);
  return {sum_choices(d_rows, p),
          d_probabilities.index_select(0, p.row_of_choice).view({-1, p.top_k})};
}

}  // namespace moetron
