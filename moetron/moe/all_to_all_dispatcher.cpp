#include "moetron/moe/all_to_all_dispatcher.h"

#include <algorithm>
#include <numeric>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/moe/pending_tensor.h"
#include "moetron/moe/permutation.h"

namespace moetron {
namespace {

using Counts = std::vector<int64_t>;  // copies by rank

struct ExchangePlan final : DispatchPlan {
  Counts sent, received;
  at::Tensor token_of_copy;    // [sent]
  at::Tensor choice_of_copy;   // [sent] token * K + slot; undefined where deduplicated
  at::Tensor copies_of_token;  // [tokens, width] number among the sent copies; `sent` for none
  int64_t top_k = 0;
  Permutation permutation;  // of the received copies
};

int64_t total(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

// Sends rows to the ranks of the experts, or back.
PendingTensor start_exchange(const at::Tensor& rows, const Counts& out, const Counts& in,
                             Communicator& group) {
  std::vector<int64_t> sizes = rows.sizes().vec();
  sizes[0] = total(in);
  PendingTensor pending{at::empty(sizes, rows.options()), {}};
  pending.work = group.all_to_all_v(pending.output, rows.contiguous(), in, out);
  return pending;
}

const ExchangePlan& exchange_plan(const DispatchPlan& plan) {
  const auto* own = dynamic_cast<const ExchangePlan*>(&plan);
  MT_CHECK(own != nullptr, "the plan of another dispatcher");
  return *own;
}

// copies [sent, ...] -> [tokens, width, ...], zeros where a token has fewer copies.
at::Tensor by_token(const at::Tensor& copies, const ExchangePlan& plan) {
  const at::Tensor padded = at::constant_pad_nd(copies, {0, 0, 0, 1});
  return padded.index_select(0, plan.copies_of_token.flatten())
      .unflatten(0, plan.copies_of_token.sizes());
}

class AllToAllDispatcher final : public Dispatcher {
 public:
  AllToAllDispatcher(const DispatcherSettings& settings, bool deduplicates)
      : Dispatcher(settings.max_tokens), settings_(settings), deduplicates_(deduplicates) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    const ExchangePlan& p = exchange_plan(*plan);
    PendingTensor back =
        start_exchange(p.permutation.sum(rows), p.received, p.sent, *layout().group);
    return Pending<at::Tensor>([=]() mutable { return sum_copies(back, exchange_plan(*plan)); });
  }

  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    const ExchangePlan& p = exchange_plan(*plan);
    const at::Tensor d_copies = p.permutation.sum(d_rows);                        // [received, H]
    const at::Tensor d_choices = p.permutation.scatter_choices(d_probabilities);  // [received, K']
    Communicator& group = *layout().group;
    group.group_begin();
    PendingTensor rows_back = start_exchange(d_copies, p.received, p.sent, group);
    PendingTensor choices_back = start_exchange(d_choices, p.received, p.sent, group);
    group.group_end();
    return Pending<DispatchGrads>([=, this]() mutable {
      const ExchangePlan& finished = exchange_plan(*plan);
      DispatchGrads grads;
      grads.d_hidden = sum_copies(rows_back, finished);
      // [tokens, copies of a token, K or 1]: a choice's shards of one expert are added.
      const at::Tensor d = by_token(choices_back.finish(), finished);
      grads.d_probabilities =
          deduplicates_ ? d.sum(1) : d.view({d.size(0), finished.top_k, layout().tpe}).sum(2);
      return grads;
    });
  }

 private:
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    auto plan = make_plan(routing.experts);
    exchange_counts(*plan, tokens.data.device());
    Communicator& group = *layout().group;
    group.group_begin();
    PendingValue sent = start_copies(tokens, *plan);
    PendingTensor choices =
        start_exchange(pack_choices(routing, *plan), plan->sent, plan->received, group);
    group.group_end();
    return Pending<Dispatched>([=, this]() mutable {
      const Value copies = sent.finish();  // [received, ...]
      // Both [received, K'], K' = K or 1.
      const auto parts = choices.finish().chunk(2, 1);
      plan->permutation = Permutation(parts[0].to(at::kLong), settings_);
      Dispatched out;
      out.rows = plan->permutation.rows_of(copies);
      out.probabilities = plan->permutation.gather_choices(parts[1].contiguous().view(at::kFloat));
      out.plan = plan;
      return out;
    });
  }

  Pending<Value> send_grads(const Value& d_hidden,
                            std::shared_ptr<const DispatchPlan> plan) override {
    Communicator& group = *layout().group;
    group.group_begin();
    PendingValue copies = start_copies(d_hidden, exchange_plan(*plan));
    group.group_end();
    return Pending<Value>(
        [=]() mutable { return exchange_plan(*plan).permutation.rows_of(copies.finish()); });
  }

  // A copy for each rank or choice, to where it goes.
  PendingValue start_copies(const Value& tokens, const ExchangePlan& plan) const {
    const auto start = [&](const at::Tensor& x) {
      return start_exchange(x.index_select(0, plan.token_of_copy), plan.sent, plan.received,
                            *layout().group);
    };
    PendingValue sent{.data = start(tokens.data)};
    if (tokens.scales.defined()) sent.scales = start(tokens.scales);
    return sent;
  }

  // experts [tokens, K]: which copies go where.
  std::shared_ptr<ExchangePlan> make_plan(const at::Tensor& experts) const {
    const int64_t ranks = layout().size(), tokens = experts.size(0), top_k = experts.size(1);
    auto plan = std::make_shared<ExchangePlan>();
    plan->top_k = top_k;
    // The rank's part of the experts, -1 for choices that go nowhere.
    const at::Tensor part = experts.div(layout().num_local(), "floor").clamp_min(-1);
    const at::Tensor part_of_rank =
        at::arange(ranks, experts.options()).floor_divide(layout().tpe).view({ranks, 1, 1});
    at::Tensor goes = part.unsqueeze(0).eq(part_of_rank);  // [ranks, tokens, K]
    goes = deduplicates_ ? goes.any(2) : goes.flatten(1);  // [ranks, items], tokens or choices
    const at::Tensor copies = goes.nonzero();              // [sent, 2], by rank, then item
    const at::Tensor rank_of_copy = copies.select(1, 0), item = copies.select(1, 1);
    const at::Tensor per_rank = goes.sum(1).cpu();
    plan->sent.assign(per_rank.const_data_ptr<int64_t>(),
                      per_rank.const_data_ptr<int64_t>() + ranks);
    // A token's copies stand in its row of the table: in rank order, or by slot and shard.
    int64_t width = top_k * layout().tpe;
    at::Tensor column;
    if (deduplicates_) {
      width = std::min(width, ranks);
      plan->token_of_copy = item;
      column = goes.to(at::kLong).cumsum(0).index({rank_of_copy, item}) - 1;
    } else {
      plan->choice_of_copy = item;
      plan->token_of_copy = item.floor_divide(top_k);
      column = item.remainder(top_k) * layout().tpe + rank_of_copy.remainder(layout().tpe);
    }
    const int64_t num_sent = copies.size(0);
    at::Tensor table = at::full({tokens * width}, num_sent, experts.options());
    table.index_copy_(0, plan->token_of_copy * width + column,
                      at::arange(num_sent, experts.options()));
    plan->copies_of_token = table.view({tokens, width});
    return plan;
  }

  void exchange_counts(ExchangePlan& plan, c10::Device device) const {
    const at::Tensor mine = at::tensor(plan.sent, at::kLong).to(device);
    const at::Tensor theirs = at::empty_like(mine);
    const Counts ones(plan.sent.size(), 1);
    layout().group->all_to_all_v(theirs, mine, ones, ones).wait();
    const at::Tensor host = theirs.cpu();
    plan.received.assign(host.const_data_ptr<int64_t>(),
                         host.const_data_ptr<int64_t>() + host.numel());
  }

  // What goes with each copy, all of its token's choices or the one, in one small row: experts,
  // then the bits of the probabilities. [sent, 2 K'] int32
  at::Tensor pack_choices(const Routing& routing, const ExchangePlan& plan) const {
    const at::Tensor bits = routing.probabilities.contiguous().view(at::kInt);
    const at::Tensor both = at::stack({routing.experts.to(at::kInt), bits}, 1);  // [tokens, 2, K]
    if (deduplicates_) return both.flatten(1).index_select(0, plan.token_of_copy);
    return both.transpose(1, 2).flatten(0, 1).index_select(0, plan.choice_of_copy);
  }

  // [sent, hidden] on its way -> [tokens, hidden], added in fp32.
  static at::Tensor sum_copies(PendingTensor& pending, const ExchangePlan& plan) {
    const at::Tensor copies = pending.finish();
    return by_token(copies, plan).sum(1, /*keepdim=*/false, at::kFloat).to(copies.dtype());
  }

  const ExpertLayout& layout() const { return settings_.layout; }

  DispatcherSettings settings_;
  bool deduplicates_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(const DispatcherSettings& settings,
                                                       bool deduplicates) {
  return std::make_unique<AllToAllDispatcher>(settings, deduplicates);
}

}  // namespace moetron
