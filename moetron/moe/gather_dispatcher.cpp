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
Dispatched permute(const Value& copies, const at::Tensor& experts, const at::Tensor& probabilities,
                   const DispatcherSettings& settings, bool all_here = false) {
  auto plan = std::make_shared<PermutedPlan>();
  plan->permutation = Permutation(experts, settings, all_here);
  Dispatched out;
  out.rows = plan->permutation.rows_of(copies);
  out.probabilities = plan->permutation.gather_choices(probabilities);
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

  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    return Pending<DispatchGrads>([=] {
      const Permutation& permutation = permutation_of(*plan);
      return DispatchGrads{permutation.sum(d_rows), permutation.scatter_choices(d_probabilities)};
    });
  }

 private:
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    return Pending<Dispatched>([=, this] {
      return permute(tokens, routing.experts, routing.probabilities, settings_, routing.all_go);
    });
  }

  Pending<Value> send_grads(const Value& d_hidden,
                            std::shared_ptr<const DispatchPlan> plan) override {
    return Pending<Value>([=] { return permutation_of(*plan).rows_of(d_hidden); });
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

PendingValue start_gather(const Value& tokens, Communicator& group) {
  PendingValue pending{.data = start_gather(tokens.data, group)};
  if (tokens.scales.defined()) pending.scales = start_gather(tokens.scales, group);
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

// A token as bytes: data, experts (int32), probabilities (fp32), scales, filled up to 16 bytes.
class PackedRow {
 public:
  PackedRow(const Value& tokens, int64_t top_k)
      : data_bytes_(row_bytes(tokens.data)),
        choice_bytes_(top_k * 4),
        scale_bytes_(tokens.scales.defined() ? row_bytes(tokens.scales) : 0),
        data_type_(tokens.data.scalar_type()) {}

  // [tokens, bytes of a row]
  at::Tensor pack(const Value& tokens, const Routing& routing) const {
    const int64_t size = (data_bytes_ + 2 * choice_bytes_ + scale_bytes_ + 15) / 16 * 16;
    const at::Tensor bytes =
        at::zeros({tokens.data.size(0), size}, tokens.data.options().dtype(at::kByte));
    const auto put = [&](int64_t begin, const at::Tensor& values) {
      const at::Tensor raw = values.contiguous().view(at::kByte);
      bytes.narrow(1, begin, raw.size(1)).copy_(raw);
    };
    put(0, tokens.data);
    put(data_bytes_, routing.experts.to(at::kInt));
    put(data_bytes_ + choice_bytes_, routing.probabilities);
    if (scale_bytes_ > 0) put(data_bytes_ + 2 * choice_bytes_, tokens.scales);
    return bytes;
  }

  Value tokens_of(const at::Tensor& packed) const {
    Value tokens{.data = part(packed, 0, data_bytes_, data_type_)};
    if (scale_bytes_ > 0)
      tokens.scales = part(packed, data_bytes_ + 2 * choice_bytes_, scale_bytes_, at::kFloat);
    return tokens;
  }
  at::Tensor experts_of(const at::Tensor& packed) const {
    return part(packed, data_bytes_, choice_bytes_, at::kInt);
  }
  at::Tensor probabilities_of(const at::Tensor& packed) const {
    return part(packed, data_bytes_ + choice_bytes_, choice_bytes_, at::kFloat);
  }

 private:
  static int64_t row_bytes(const at::Tensor& x) {
    return x.size(1) * static_cast<int64_t>(x.element_size());
  }
  static at::Tensor part(const at::Tensor& packed, int64_t begin, int64_t size,
                         at::ScalarType type) {
    return packed.narrow(1, begin, size).contiguous().view(type);
  }

  int64_t data_bytes_;
  int64_t choice_bytes_;  // of the experts, and of the probabilities
  int64_t scale_bytes_;
  at::ScalarType data_type_;
};

class GatherDispatcher final : public Dispatcher {
 public:
  GatherDispatcher(const DispatcherSettings& settings, bool fused)
      : Dispatcher(settings.max_tokens), settings_(settings), fused_(fused) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    PendingTensor sums = start_reduce(permutation_of(*plan).sum(rows), group());
    return Pending<at::Tensor>([=]() mutable { return sums.finish(); });
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
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    if (fused_) return start_fused_dispatch(tokens, routing);
    PendingValue all = start_gather(tokens, group());
    PendingTensor experts = start_gather(routing.experts, group());
    PendingTensor probabilities = start_gather(routing.probabilities, group());
    return Pending<Dispatched>([=, this]() mutable {
      const Value copies = all.finish();
      const at::Tensor all_experts = experts.finish();
      return permute(copies, all_experts, probabilities.finish(), settings_);
    });
  }

  Pending<Value> send_grads(const Value& d_hidden,
                            std::shared_ptr<const DispatchPlan> plan) override {
    PendingValue all = start_gather(d_hidden, group());
    return Pending<Value>([=]() mutable { return permutation_of(*plan).rows_of(all.finish()); });
  }

  Pending<Dispatched> start_fused_dispatch(const Value& tokens, const Routing& routing) {
    const PackedRow row(tokens, routing.experts.size(1));
    PendingTensor all = start_gather(row.pack(tokens, routing), group());
    return Pending<Dispatched>([=, this]() mutable {
      const at::Tensor packed = all.finish();
      return permute(row.tokens_of(packed), row.experts_of(packed).to(at::kLong),
                     row.probabilities_of(packed), settings_);
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
