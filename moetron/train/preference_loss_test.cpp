#include "moetron/train/preference_loss.h"

#include <cmath>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "moetron/nn/loss.h"

namespace moetron {
namespace {

constexpr int64_t kRows = 6, kSeq = 5;
constexpr double kPairs = 7;  // of the global batch

// Three pairs, of which the last is padding; some labels are not trained.
MicroBatch pairs(bool weighted) {
  at::Tensor labels = at::full({kRows, kSeq}, 3, at::kLong);
  labels.narrow(1, 0, 2).fill_(kIgnoredLabel);
  labels[1][4] = kIgnoredLabel;
  labels.narrow(0, 4, 2).fill_(kIgnoredLabel);
  MicroBatch batch = make_micro_batch(at::zeros({kRows, kSeq}, at::kLong), labels);
  if (weighted) batch.loss_weights = at::linspace(0.5, 1.5, kRows * kSeq).view({kRows, kSeq});
  batch.d_loss = 1 / kPairs;
  return batch;
}

at::Tensor random_log_probabilities(const MicroBatch& batch) {
  at::Generator random = at::detail::createCPUGenerator(5);
  const at::Tensor values = -at::rand({kRows * kSeq}, random).mul_(4);
  return values.masked_fill(batch.labels.flatten().eq(kIgnoredLabel), 0);
}

const at::Tensor kReferences = at::tensor({-5.0, -3.5, -6.0, -6.5, 0.0, 0.0}, at::kDouble);

// The formulas, number by number.
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

struct Expected {
  double loss = 0, chosen = 0, rejected = 0, right = 0, margins = 0;
};

Expected expected(const at::Tensor& log_probabilities, const MicroBatch& batch,
                  const PreferenceSpec& spec) {
  Expected sums;
  for (int64_t pair = 0; pair < 2; ++pair) {  // the third has no labels
    double rewards[2] = {};
    for (int64_t side = 0; side < 2; ++side) {
      const int64_t row = 2 * pair + side;
      double sum = -kReferences[row].item<double>();
      for (int64_t i = 0; i < kSeq; ++i) {
        const double weight =
            batch.loss_weights.defined() ? batch.loss_weights[row][i].item<double>() : 1;
        sum += weight * log_probabilities[row * kSeq + i].item<double>();
      }
      rewards[side] = spec.beta * sum;
    }
    const double margin = rewards[0] - rewards[1], s = spec.label_smoothing;
    sums.loss -= (1 - s) * std::log(sigmoid(margin)) + s * std::log(sigmoid(-margin));
    sums.chosen += rewards[0];
    sums.rejected += rewards[1];
    sums.right += rewards[0] > rewards[1] ? 1 : 0;
    sums.margins += margin;
  }
  return sums;
}

TEST(PreferenceLoss, IsThatOfTheFormula) {
  for (const bool weighted : {false, true}) {
    for (const PreferenceSpec& spec :
         {PreferenceSpec{0.1, 0}, PreferenceSpec{0.5, 0.2}, PreferenceSpec{2, 0.49}}) {
      const MicroBatch batch = pairs(weighted);
      const at::Tensor log_probabilities = random_log_probabilities(batch);
      const PreferenceLoss made = preference_loss(log_probabilities, kReferences, batch, spec);
      const Expected wanted = expected(log_probabilities, batch, spec);
      EXPECT_NEAR(made.late.loss.item<double>(), wanted.loss, 1e-6 * wanted.loss);
      const double* sums = made.rewards.const_data_ptr<double>();
      EXPECT_NEAR(sums[0], wanted.chosen, 1e-12);
      EXPECT_NEAR(sums[1], wanted.rejected, 1e-12);
      EXPECT_EQ(sums[2], wanted.right);
      EXPECT_NEAR(sums[3], wanted.margins, 1e-12);
      EXPECT_EQ(wanted.right, 1) << "one pair each way, to see both";
      const Rewards means = mean_rewards(made.rewards, 2);
      EXPECT_EQ(means.accuracies, 0.5);
      EXPECT_NEAR(means.margins, means.chosen - means.rejected, 1e-12);
    }
  }
}

// By the formula's differences, in fp64: every label, and none where there is no label.
TEST(PreferenceLoss, HasTheGradientOfTheFormula) {
  for (const bool weighted : {false, true}) {
    const PreferenceSpec spec{0.7, 0.1};
    const MicroBatch batch = pairs(weighted);
    const at::Tensor log_probabilities = random_log_probabilities(batch).to(at::kDouble);
    const at::Tensor gradient =
        preference_loss(log_probabilities.to(at::kFloat), kReferences, batch, spec)
            .late.d_log_probabilities;
    ASSERT_EQ(gradient.scalar_type(), at::kFloat);
    ASSERT_EQ(gradient.numel(), kRows * kSeq);
    const at::Tensor labels = batch.labels.flatten();
    int num_labels = 0;
    for (int64_t i = 0; i < kRows * kSeq; ++i) {
      const double found = gradient[i].item<double>();
      if (labels[i].item<int64_t>() == kIgnoredLabel) {
        EXPECT_EQ(found, 0) << i;
        continue;
      }
      constexpr double kStep = 1e-4;
      at::Tensor more = log_probabilities.clone(), less = log_probabilities.clone();
      more[i] += kStep;
      less[i] -= kStep;
      const double slope =
          (expected(more, batch, spec).loss - expected(less, batch, spec).loss) / (2 * kStep);
      EXPECT_NEAR(found, slope / kPairs, 1e-6 * std::abs(slope)) << i;
      ++num_labels;
    }
    EXPECT_EQ(num_labels, 11);
  }
}

// Where the exponential of either side would overflow.
TEST(PreferenceLoss, IsFiniteFarAway) {
  const at::Tensor margins = at::tensor({-2000.0, 0.0, 2000.0}, at::kDouble);
  const MarginLoss made = dpo_loss(margins, 0.25);
  EXPECT_NEAR(made.loss[0].item<double>(), 1500, 1e-9);
  EXPECT_NEAR(made.loss[1].item<double>(), std::log(2), 1e-12);
  EXPECT_NEAR(made.loss[2].item<double>(), 500, 1e-9);
  EXPECT_NEAR(made.d_margin[0].item<double>(), -0.75, 1e-12);
  EXPECT_NEAR(made.d_margin[2].item<double>(), 0.25, 1e-12);
}

}  // namespace
}  // namespace moetron
