#include "moetron/moe/router.h"

#include <cmath>
#include <limits>

#include <ATen/ATen.h>

#include "moetron/arch/tensors.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/router.h"
#include "moetron/moe/capacity.h"
#include "moetron/nn/linear.h"

namespace moetron {
namespace {

constexpr double kLowest = -std::numeric_limits<double>::infinity();

// The k largest of the last dimension; among equals the lowest index, on every rank and device
// alike.
at::Tensor top_indices(const at::Tensor& scores, int64_t k) {
  const at::Tensor order = std::get<1>(
      at::sort(scores, /*stable=*/std::optional<bool>(true), /*dim=*/-1, /*descending=*/true));
  return order.narrow(-1, 0, k);
}

// How often each of `num_bins` numbers occurs in `numbers`, which has a row a token: [num_bins] of
// `dtype`. `padding` [tokens], if defined: rows that do not count.
at::Tensor count_numbers(const at::Tensor& numbers, const at::Tensor& padding, int64_t num_bins,
                         at::ScalarType dtype) {
  const auto options = numbers.options().dtype(dtype);
  at::Tensor each = at::ones(numbers.sizes(), options);
  if (padding.defined()) each.masked_fill_(padding.unsqueeze(1), 0);
  return at::zeros({num_bins}, options).index_add_(0, numbers.reshape(-1), each.reshape(-1));
}

// From logits to weights and scores; the choice between them has no gradient.
class RouterKernel final : public JointOperation {
 public:
  RouterKernel(RouterScores forward, const RouterRule& rule, at::ScalarType dtype)
      : forward_(std::move(forward)), rule_(rule), dtype_(dtype) {}

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    return {router_backward(d_outputs[0], d_outputs[1], forward_, rule_, dtype_)};
  }
  bool has_weights() const override { return false; }
  void add_weight_grads() override {}

 private:
  RouterScores forward_;
  RouterRule rule_;
  at::ScalarType dtype_;  // of the logits
};

// Logits that do not depend on the router's input: evenly distributed with a variance of one, the
// same of a token of the micro-batch on whatever rank it is. [slice, num_experts]
at::Tensor random_logits(int64_t seed, int64_t num_experts, const TokenLayout& layout,
                         const at::TensorOptions& options) {
  constexpr int64_t kMask = 0xffffffff;  // products stay below 2^63
  const at::Tensor token = layout.token_of_row(options.device());
  at::Tensor x = (token.unsqueeze(1) * num_experts + at::arange(num_experts, token.options()));
  x = (x + seed * 0x3c6ef372).bitwise_and(kMask);
  for (int round = 0; round < 2; ++round) {  // of a mixing function as hash tables have it
    x = (x.bitwise_right_shift(16).bitwise_xor(x) * 0x45d9f3b).bitwise_and(kMask);
  }
  x = x.bitwise_right_shift(16).bitwise_xor(x);
  const at::Tensor even = (x.to(at::kDouble) / static_cast<double>(kMask) - 0.5) * std::sqrt(12.0);
  return at::constant_pad_nd(even, {0, 0, 0, layout.slice_size() - layout.num_local()}).to(options);
}

// Other values, the same gradient: straight through.
class OtherValues final : public JointOperation {
 public:
  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    return d_outputs;
  }
  bool has_weights() const override { return false; }
  void add_weight_grads() override {}
};

}  // namespace

Router::Router(const std::string& prefix, const RouterSettings& settings,
               const at::TensorOptions& options)
    : settings_(settings),
      weight_(prefix + tensors::kRouterWeight.name, {settings.num_experts, settings.hidden_size},
              options, {}),
      counts_(at::zeros({settings.num_experts}, options.dtype(at::kLong))) {
  if (settings.expert_bias) {
    bias_.emplace(
        prefix + tensors::kRouterBias.name, std::vector<int64_t>{settings.num_experts},
        options.dtype(at::kFloat),
        ParameterSettings{.init = Init::kZeros, .weight_decay = false, .role = Role::kBuffer});
  }
}

RouterOutput Router::forward(const at::Tensor& x, const MicroBatch& micro_batch, bool count,
                             const Routing* earlier, SegmentRun& run) {
  const RouterSettings& s = settings_;
  const int64_t num_local = micro_batch.layout.num_local();
  const bool has_padding = micro_batch.padding.defined();
  const at::ScalarType dtype = s.fp32_logits ? at::kFloat : x.scalar_type();
  at::Tensor logits = linear(x, weight_, run, /*bias=*/nullptr, dtype);
  if (s.random_seed) {
    at::Tensor random =
        random_logits(*s.random_seed, s.num_experts, micro_batch.layout, logits.options());
    run.attach({&random}, std::make_shared<OtherValues>(), {logits});
    logits = random;
  }
  const Scored scored = score(logits, count && !has_padding ? num_local : 0, earlier, run);
  const at::Tensor chosen = scored.chosen.narrow(0, 0, num_local);
  if (count && has_padding) {
    counts_.add_(count_numbers(chosen, micro_batch.padding, s.num_experts, at::kLong));
  }

  RouterOutput output;
  Routing& routing = output.routing;
  routing.chosen = scored.chosen;
  routing.experts = earlier != nullptr ? earlier->experts
                                       : drop(routing.chosen, scored.weights.detach(), micro_batch);
  routing.all_go = !s.capacity_factor && num_local == x.size(0) && !has_padding;
  routing.probabilities = routing.all_go
                              ? scored.weights
                              : scored.weights.masked_fill(routing.experts.eq(kNotRouted), 0);
  if (s.aux_loss != RouterSettings::AuxLoss::kNone && s.aux_loss_coeff != 0) {
    output.aux_loss = aux_loss(scored.scores.narrow(0, 0, num_local), chosen, micro_batch);
  }
  return output;
}

// Scores, choice and weights; adds the choices of the first `num_counted` tokens to counts().
Router::Scored Router::score(const at::Tensor& logits, int64_t num_counted, const Routing* earlier,
                             SegmentRun& run) {
  const RouterSettings& s = settings_;
  if (run.takes_kernels() && has_router_kernel(logits))
    return score_by_kernel(logits, num_counted, earlier, run);
  Scored out;
  const at::Tensor in_fp32 = logits.to(at::kFloat);
  out.scores = s.sigmoid ? in_fp32.sigmoid() : in_fp32.softmax(-1);
  out.chosen = earlier != nullptr ? earlier->chosen : choose(out.scores.detach());
  out.weights = out.scores.gather(1, out.chosen);
  if (s.normalize) {
    out.weights = out.weights / (out.weights.sum(-1, /*keepdim=*/true) + s.normalize_eps);
  }
  if (s.scaling != 1) out.weights = out.weights * s.scaling;
  if (num_counted > 0) {
    const at::Tensor counted = out.chosen.narrow(0, 0, num_counted);
    counts_.add_(count_numbers(counted, {}, s.num_experts, at::kLong));
  }
  return out;
}

Router::Scored Router::score_by_kernel(const at::Tensor& logits, int64_t num_counted,
                                       const Routing* earlier, SegmentRun& run) {
  const RouterRule& rule = settings_;
  RouterScores made;
  {
    const at::NoGradGuard no_grad;
    made = router_forward(logits.detach(), bias_ ? bias_->value() : at::Tensor(),
                          earlier != nullptr ? earlier->chosen : at::Tensor(), rule, counts_,
                          num_counted);
  }
  Scored out{made.scores.detach(), made.chosen, made.weights.detach()};
  run.attach({&out.weights, &out.scores},
             std::make_shared<RouterKernel>(std::move(made), rule, logits.scalar_type()), {logits});
  return out;
}

// chosen [slice, K] -> the same, kNotRouted for padding and for what exceeds the capacity.
at::Tensor Router::drop(const at::Tensor& chosen, const at::Tensor& probabilities,
                        const MicroBatch& micro_batch) const {
  const at::NoGradGuard no_grad;
  const TokenLayout& layout = micro_batch.layout;
  const int64_t num_local = layout.num_local();
  const bool has_padding = micro_batch.padding.defined();
  at::Tensor experts = chosen;
  const int64_t rows_beyond = chosen.size(0) - num_local;
  if (rows_beyond > 0 || has_padding) experts = chosen.clone();  // the graph keeps `chosen`
  if (rows_beyond > 0) experts.narrow(0, num_local, rows_beyond).fill_(kNotRouted);
  if (has_padding) {
    experts.narrow(0, 0, num_local).masked_fill_(micro_batch.padding.unsqueeze(1), kNotRouted);
  }
  if (!settings_.capacity_factor) return experts;
  const int64_t capacity = expert_capacity(micro_batch.num_real_tokens, settings_.top_k,
                                           settings_.num_experts, *settings_.capacity_factor);
  return drop_over_capacity(experts, probabilities, layout, settings_.num_experts, capacity,
                            settings_.drop_policy);
}

// scores [tokens, E], detached -> [tokens, K] int64
at::Tensor Router::choose(const at::Tensor& scores) const {
  const RouterSettings& s = settings_;
  const at::NoGradGuard no_grad;
  at::Tensor ranked = bias_ ? scores + bias_->value() : scores;
  if (s.num_groups > s.group_top_k) {
    const at::Tensor grouped = ranked.unflatten(1, {s.num_groups, -1});  // [tokens, G, E/G]
    const at::Tensor group_scores = s.group_score_top_two ? std::get<0>(grouped.topk(2, -1)).sum(-1)
                                                          : grouped.amax(-1);  // [tokens, G]
    const at::Tensor kept = top_indices(group_scores, s.group_top_k);
    const at::Tensor dropped =
        at::ones(group_scores.sizes(), group_scores.options().dtype(at::kBool))
            .scatter_(1, kept, false);
    ranked = grouped.masked_fill(dropped.unsqueeze(-1), kLowest).flatten(1);
  }
  return top_indices(ranked, s.top_k).contiguous();
}

// Per sequence (or over the whole micro-batch): sum_e f_e P_e with f_e = E / (K T) * tokens sent to
// e and P_e the mean share of e in the scores, of T tokens without padding. The sigmoid router's f
// counts the best K of the raw scores: no bias, no groups (DeepSeek-V3, eq. 17 to 20). f is the
// whole sequence's, counted over the tensor-parallel ranks; P is a sum over tokens, so that each
// rank's tokens give a part of the loss and no more needs to be exchanged. scores [local, E],
// experts [local, K].
at::Tensor Router::aux_loss(const at::Tensor& scores, const at::Tensor& experts,
                            const MicroBatch& micro_batch) const {
  const RouterSettings& s = settings_;
  const TokenLayout& layout = micro_batch.layout;
  const at::Tensor& padding = micro_batch.padding;
  const int64_t rows =
      s.aux_loss == RouterSettings::AuxLoss::kSequence ? micro_batch.tokens.size(0) : 1;
  const int64_t per_row = layout.num_tokens / rows;
  const at::Tensor row_of_token =
      layout.token_of_row(experts.device()).floor_divide(per_row);  // [local]
  at::Tensor fractions;                                             // [rows, E]
  {
    const at::NoGradGuard no_grad;
    const bool counts_raw = s.sigmoid && s.aux_loss == RouterSettings::AuxLoss::kSequence;
    const at::Tensor counted = counts_raw ? top_indices(scores.detach(), s.top_k) : experts;
    const at::Tensor cells = row_of_token.unsqueeze(1) * s.num_experts + counted;  // [local, K]
    fractions = count_numbers(cells, padding, rows * s.num_experts, at::kFloat);
    if (layout.size() > 1) layout.group->all_reduce(fractions).wait();
    fractions = fractions.view({rows, s.num_experts});
    if (padding.defined()) {  // K T choices were counted in a row
      fractions = fractions.mul(s.num_experts).div(fractions.sum(1, /*keepdim=*/true).clamp_min(1));
    } else {
      fractions.mul_(static_cast<double>(s.num_experts) / static_cast<double>(s.top_k * per_row));
    }
  }
  at::Tensor shares = s.sigmoid ? scores / scores.sum(-1, /*keepdim=*/true) : scores;
  if (padding.defined()) shares = shares.masked_fill(padding.unsqueeze(1), 0);
  return (fractions.index_select(0, row_of_token) * shares).sum() * s.aux_loss_coeff;
}

void Router::update_bias() {
  const bool moves = bias_ && bias_->role() == Role::kBuffer;  // and is not frozen
  if (moves && settings_.bias_update_rate != 0) {
    const at::Tensor load = counts_.to(at::kDouble);
    const at::Tensor direction = (load.mean() - load).sign().to(at::kFloat);
    bias_->value().add_(direction, settings_.bias_update_rate);
  }
  counts_.zero_();
}

void Router::visit(const ParameterVisitor& visitor) {
  visitor(weight_);
  if (bias_) visitor(*bias_);
}

}  // namespace moetron
