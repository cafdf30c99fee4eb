// Losses of preferences between two answers to one prompt, from the log-probabilities of their
// tokens under the model that is trained and under a reference that is not. Of a micro-batch, rows
// 2i and 2i + 1 are the chosen and the rejected answer of a pair.
//
// With log p(y) the sum over an answer's labelled tokens, weighted as they are, the reward of an
// answer is beta (log p(y) - log p_reference(y)), and a pair's margin the chosen answer's reward
// less the rejected one's. A loss is a function of the margin: another one is one more function
// beside dpo_loss() and its choice in preference_loss().
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/metrics/step_record.h"
#include "moetron/parallel/micro_batch.h"
#include "moetron/pipeline/executor.h"
#include "moetron/run/run_spec.h"

namespace moetron {

struct MarginLoss {
  at::Tensor loss;      // [pairs] fp64
  at::Tensor d_margin;  // [pairs] fp64, its derivative
};

// -(1 - s) log sigmoid(m) - s log sigmoid(-m): direct preference optimization (Rafailov et al.
// 2023, equation 7), TRL's loss_type "sigmoid"; with label smoothing s the conservative one
// (Mitchell 2023), which TRL 1.16 has no more. margins [pairs] fp64.
MarginLoss dpo_loss(const at::Tensor& margins, double label_smoothing);

// log_probabilities [batch * seq] fp32, of each label, 0 where there is none -> [batch] fp64, their
// weighted sum for each row.
at::Tensor sum_log_probabilities(const at::Tensor& log_probabilities, const MicroBatch& batch);

struct PreferenceLoss {
  // The sum over the micro-batch's pairs, and the gradient of that sum times the record's d_loss.
  LateLoss late;
  at::Tensor rewards;  // [4] fp64, sums over the pairs in the order of Rewards' members
};

// `references` [batch] fp64: sum_log_probabilities() under the reference. Pairs without labels
// (padding) have no part in anything.
PreferenceLoss preference_loss(const at::Tensor& log_probabilities, const at::Tensor& references,
                               const MicroBatch& batch, const PreferenceSpec& spec);

// From sums over all pairs to their means. rewards [4], as above; waits for their device.
Rewards mean_rewards(const at::Tensor& rewards, double num_pairs);

}  // namespace moetron
