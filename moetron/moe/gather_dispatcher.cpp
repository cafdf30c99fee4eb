#include "moetron/moe/gather_dispatcher.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/moe/pending_tensor.h"
#include "moetron/moe/permutation.h"

namespace moetron {
namespace {

struct PermutedPlan final : DispatchPlan {
  Permutation permutation;
};

const Permutation& permutation_of(const DispatchPlan& plan) {
  const auto* own = dynamic_cast<const PermutedPlan*>(&plan);
  MT_CHECK(own != nullptr, "the plan of another dispatcher");
  return own->permutation;
}

// The local part of dispatch: copies and their choices to rows.
Dispatched permute(const at::Tensor& hidden, const at::Tensor& experts,
                   const at::Tensor& probabilities, const DispatcherSettings& settings,
                   bool all_here = false) {
  auto plan = std::make_shared<PermutedPlan>();
  plan->permutation = Permutation(experts, settings, all_here);
  Dispatched out;
  out.rows = plan->permutation.gather(hidden);
  out.probabilities = plan->permutation.gather_choices(probabilities);
  out.rows_per_expert = plan->permutation.rows_per_expert();
  out.plan = std::move(plan);
  return out;
}

class LocalDispatcher final : public Dispatcher {
 public:
  explicit LocalDispatcher(const DispatcherSettings& settings)
      : Dispatcher(settings.max_tokens), settings_(settings) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    return Pending<at::Tensor>([=] { return permutation_of(*plan).sum(rows); });
  }

  Pending<at::Tensor> start_combine_backward(const at::Tensor& d_hidden,
                                             std::shared_ptr<const DispatchPlan> plan) override {
    return Pending<at::Tensor>([=] { return permutation_of(*plan).gather(d_hidden); });
  }

  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    return Pending<DispatchGrads>([=] {
      const Permutation& permutation = permutation_of(*plan);
      return DispatchGrads{permutation.sum(d_rows), permutation.scatter_choices(d_probabilities)};
    });
  }

 private:
  Pending<Dispatched> send_tokens(const at::Tensor& hidden, const Routing& routing) override {
    return Pending<Dispatched>([=, this] {
      return permute(hidden, routing.experts, routing.probabilities, settings_, routing.all_go);
    });
  }

  DispatcherSettings settings_;
};

// x [n, ...] of every rank -> [ranks * n, ...]
PendingTensor start_gather(const at::Tensor& x, Communicator& group) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] *= group.size();
  PendingTensor pending{at::empty(sizes, x.options()), {}};
  pending.work = group.all_gather(pending.output, x.contiguous());
  return pending;
}

// x [ranks * n, ...], partial sums -> [n, ...]
PendingTensor start_reduce(const at::Tensor& x, Communicator& group) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes[0] /= group.size();
  PendingTensor pending{at::empty(sizes, x.options()), {}};
  pending.work = group.reduce_scatter(pending.output, x.contiguous());
  return pending;
}

// A token as bytes: hidden, experts (int32), probabilities (fp32), filled up to 16 bytes.
struct PackedRow {
  int64_t hidden_bytes;
  int64_t choice_bytes;  // of the experts, and of the probabilities

  PackedRow(const at::Tensor& hidden, int64_t top_k)
      : hidden_bytes(hidden.size(1) * static_cast<int64_t>(hidden.element_size())),
        choice_bytes(top_k * 4) {}
  int64_t size() const { return (hidden_bytes + 2 * choice_bytes + 15) / 16 * 16; }

  at::Tensor hidden_of(const at::Tensor& packed, at::ScalarType dtype) const {
    return packed.narrow(1, 0, hidden_bytes).contiguous().view(dtype);
  }
  at::Tensor experts_of(const at::Tensor& packed) const {
    return packed.narrow(1, hidden_bytes, choice_bytes).contiguous().view(at::kInt);
  }
  at::Tensor probabilities_of(const at::Tensor& packed) const {
    return packed.narrow(1, hidden_bytes + choice_bytes, choice_bytes)
        .contiguous()
        .view(at::kFloat);
  }
};

// [tokens, packed.size()] bytes
at::Tensor pack(const at::Tensor& hidden, const Routing& routing, const PackedRow& packed) {
  const at::Tensor bytes =
      at::zeros({hidden.size(0), packed.size()}, hidden.options().dtype(at::kByte));
  const auto put = [&](int64_t begin, const at::Tensor& values) {
    const at::Tensor raw = values.contiguous().view(at::kByte);
    bytes.narrow(1, begin, raw.size(1)).copy_(raw);
  };
  put(0, hidden);
  put(packed.hidden_bytes, routing.experts.to(at::kInt));
  put(packed.hidden_bytes + packed.choice_bytes, routing.probabilities);
  return bytes;
}

class GatherDispatcher final : public Dispatcher {
 public:
  GatherDispatcher(const DispatcherSettings& settings, bool fused)
      : Dispatcher(settings.max_tokens), settings_(settings), fused_(fused) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    PendingTensor sums = start_reduce(permutation_of(*plan).sum(rows), group());
    return Pending<at::Tensor>([=]() mutable { return sums.finish(); });
  }

  Pending<at::Tensor> start_combine_backward(const at::Tensor& d_hidden,
                                             std::shared_ptr<const DispatchPlan> plan) override {
    PendingTensor all = start_gather(d_hidden, group());
    return Pending<at::Tensor>(
        [=]() mutable { return permutation_of(*plan).gather(all.finish()); });
  }

  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    const Permutation& permutation = permutation_of(*plan);
    const at::Tensor d_hidden = permutation.sum(d_rows);                        // [R * n, hidden]
    const at::Tensor d_choices = permutation.scatter_choices(d_probabilities);  // [R * n, K]
    if (fused_ && d_hidden.scalar_type() == at::kFloat) {
      const int64_t hidden_size = d_hidden.size(1), top_k = d_choices.size(1);
      PendingTensor both = start_reduce(at::cat({d_hidden, d_choices}, 1), group());
      return Pending<DispatchGrads>([=]() mutable {
        const at::Tensor sums = both.finish();
        return DispatchGrads{sums.narrow(1, 0, hidden_size).contiguous(),
                             sums.narrow(1, hidden_size, top_k).contiguous()};
      });
    }
    if (fused_) group().group_begin();
    PendingTensor hidden_sums = start_reduce(d_hidden, group());
    PendingTensor choice_sums = start_reduce(d_choices, group());
    if (fused_) group().group_end();
    return Pending<DispatchGrads>([=]() mutable {
      const at::Tensor first = hidden_sums.finish();
      return DispatchGrads{first, choice_sums.finish()};
    });
  }

 private:
  Pending<Dispatched> send_tokens(const at::Tensor& hidden, const Routing& routing) override {
    if (fused_) return start_fused_dispatch(hidden, routing);
    PendingTensor rows = start_gather(hidden, group());
    PendingTensor experts = start_gather(routing.experts, group());
    PendingTensor probabilities = start_gather(routing.probabilities, group());
    return Pending<Dispatched>([=, this]() mutable {
      const at::Tensor all_rows = rows.finish();
      const at::Tensor all_experts = experts.finish();
      return permute(all_rows, all_experts, probabilities.finish(), settings_);
    });
  }

  Pending<Dispatched> start_fused_dispatch(const at::Tensor& hidden, const Routing& routing) {
    const PackedRow packed(hidden, routing.experts.size(1));
    const auto dtype = hidden.scalar_type();
    PendingTensor all = start_gather(pack(hidden, routing, packed), group());
    return Pending<Dispatched>([=, this]() mutable {
      const at::Tensor bytes = all.finish();
      return permute(packed.hidden_of(bytes, dtype), packed.experts_of(bytes).to(at::kLong),
                     packed.probabilities_of(bytes), settings_);
    });
  }

  Communicator& group() const { return *settings_.layout.group; }

  DispatcherSettings settings_;
  bool fused_;
};

}  // namespace

std::unique_ptr<Dispatcher> make_local_dispatcher(const DispatcherSettings& settings) {
  return std::make_unique<LocalDispatcher>(settings);
}

std::unique_ptr<Dispatcher> make_gather_dispatcher(const DispatcherSettings& settings, bool fused) {
  return std::make_unique<GatherDispatcher>(settings, fused);
}

}  // namespace moetron
