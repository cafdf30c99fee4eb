#include "moetron/moe/router.h"

#include <limits>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
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

// How often each expert occurs along the last dimension of experts [..., K]: [rows, E] fp32.
at::Tensor expert_counts(const at::Tensor& experts, int64_t rows, int64_t num_experts) {
  const at::Tensor flat = experts.reshape({rows, -1});
  const at::Tensor ones = at::ones(flat.sizes(), flat.options().dtype(at::kFloat));
  return at::zeros({rows, num_experts}, ones.options()).scatter_add_(1, flat, ones);
}

}  // namespace

Router::Router(const std::string& prefix, const RouterSettings& settings, at::ScalarType dtype)
    : settings_(settings),
      weight_(prefix + "weight", {settings.num_experts, settings.hidden_size}, dtype, {}),
      counts_(at::zeros({settings.num_experts}, at::kLong)) {
  if (settings.expert_bias) {
    bias_.emplace(
        prefix + "e_score_correction_bias", std::vector<int64_t>{settings.num_experts}, at::kFloat,
        ParameterSettings{.init = Init::kZeros, .weight_decay = false, .trainable = false});
  }
}

RouterOutput Router::forward(const at::Tensor& x, bool count, SegmentRun& run) {
  const RouterSettings& s = settings_;
  const at::Tensor tokens = x.flatten(0, 1);  // [tokens, hidden]
  const at::Tensor logits =
      linear(s.fp32_logits ? tokens.to(at::kFloat) : tokens, weight_, run).to(at::kFloat);
  const at::Tensor scores = s.sigmoid ? logits.sigmoid() : logits.softmax(-1);  // [tokens, E]

  RouterOutput output;
  output.routing.experts = choose(scores.detach());
  at::Tensor weights = scores.gather(1, output.routing.experts);  // [tokens, K]
  if (s.normalize) weights = weights / (weights.sum(-1, /*keepdim=*/true) + s.normalize_eps);
  output.routing.probabilities = s.scaling == 1 ? weights : weights * s.scaling;
  if (s.aux_loss != RouterSettings::AuxLoss::kNone && s.aux_loss_coeff != 0) {
    output.aux_loss = balance_loss(scores, output.routing.experts, x.size(0));
  }
  if (count) {
    const at::Tensor chosen = output.routing.experts.reshape(-1);
    counts_.add_(at::bincount(chosen, {}, s.num_experts));
  }
  return output;
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
// e and P_e the mean share of e in the scores. The sigmoid router's f counts the best K of the raw
// scores: no bias, no groups (DeepSeek-V3, eq. 17 to 20).
at::Tensor Router::balance_loss(const at::Tensor& scores, const at::Tensor& experts,
                                int64_t batch) const {
  const RouterSettings& s = settings_;
  const int64_t rows = s.aux_loss == RouterSettings::AuxLoss::kSequence ? batch : 1;
  const int64_t tokens = scores.size(0);
  const bool counts_raw = s.sigmoid && s.aux_loss == RouterSettings::AuxLoss::kSequence;
  const at::Tensor counted = counts_raw ? top_indices(scores.detach(), s.top_k) : experts;
  const double per_row = static_cast<double>(tokens) / static_cast<double>(rows);
  const at::Tensor fractions =
      expert_counts(counted.contiguous(), rows, s.num_experts)
          .mul_(static_cast<double>(s.num_experts) / (static_cast<double>(s.top_k) * per_row));
  const at::Tensor shares = s.sigmoid ? scores / scores.sum(-1, /*keepdim=*/true) : scores;
  const at::Tensor mean_shares = shares.unflatten(0, {rows, -1}).mean(1);  // [rows, E]
  return (fractions * mean_shares).sum() * (s.aux_loss_coeff * per_row);
}

void Router::update_bias() {
  if (bias_ && settings_.bias_update_rate != 0) {
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
