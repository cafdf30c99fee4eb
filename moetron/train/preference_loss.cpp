#include "moetron/train/preference_loss.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/nn/loss.h"

namespace moetron {
namespace {

// [batch] -> the rows of chosen and of rejected answers, [pairs] each.
std::pair<at::Tensor, at::Tensor> sides(const at::Tensor& rows) {
  const at::Tensor pairs = rows.view({-1, 2});
  return {pairs.select(1, 0), pairs.select(1, 1)};
}

}  // namespace

MarginLoss dpo_loss(const at::Tensor& margins, double label_smoothing) {
  const double s = label_smoothing;
  const at::Tensor loss = at::log_sigmoid(margins).mul(s - 1).sub_(at::log_sigmoid(-margins), s);
  return {loss, at::sigmoid(margins).sub_(1 - s)};
}

at::Tensor sum_log_probabilities(const at::Tensor& log_probabilities, const MicroBatch& batch) {
  at::Tensor rows = log_probabilities.view_as(batch.labels).to(at::kDouble);  // [batch, seq]
  if (batch.loss_weights.defined()) rows = rows.mul(batch.loss_weights);
  return rows.sum(1);
}

PreferenceLoss preference_loss(const at::Tensor& log_probabilities, const at::Tensor& references,
                               const MicroBatch& batch, const PreferenceSpec& spec) {
  const at::NoGradGuard no_grad;
  const int64_t num_rows = batch.labels.size(0);
  MT_CHECK(num_rows % 2 == 0, "a micro-batch of ", num_rows, " sequences parts a pair");
  const at::Tensor has_label = batch.labels.ne(kIgnoredLabel);  // [batch, seq]
  const auto [has_chosen, has_rejected] = sides(has_label.any(1));
  const at::Tensor counts = has_chosen.logical_and(has_rejected).to(at::kDouble);  // [pairs]
  const at::Tensor rewards =
      sum_log_probabilities(log_probabilities, batch).sub_(references).mul_(spec.beta);  // [batch]
  const auto [chosen, rejected] = sides(rewards);
  const at::Tensor margins = chosen.sub(rejected);
  const MarginLoss made = dpo_loss(margins, spec.label_smoothing);

  PreferenceLoss result;
  result.late.loss = made.loss.mul(counts).sum().to(at::kFloat);
  const at::Tensor d_chosen = made.d_margin.mul(counts).mul_(spec.beta * batch.d_loss);  // [pairs]
  const at::Tensor d_rows = at::stack({d_chosen, -d_chosen}, 1).view({num_rows, 1});
  at::Tensor d_tokens = has_label.to(at::kDouble).mul_(d_rows);  // [batch, seq]
  if (batch.loss_weights.defined()) d_tokens.mul_(batch.loss_weights);
  result.late.d_log_probabilities = d_tokens.to(at::kFloat).flatten();
  const at::Tensor is_right = chosen.gt(rejected).to(at::kDouble);
  result.rewards = at::stack({chosen, rejected, is_right, margins}).mul_(counts).sum(1);
  return result;
}

Rewards mean_rewards(const at::Tensor& rewards, double num_pairs) {
  const at::Tensor sums = rewards.cpu();
  const double* sum = sums.const_data_ptr<double>();
  const double factor = num_pairs > 0 ? 1 / num_pairs : 0;
  return {.chosen = sum[0] * factor,
          .rejected = sum[1] * factor,
          .accuracies = sum[2] * factor,
          .margins = sum[3] * factor};
}

}  // namespace moetron
