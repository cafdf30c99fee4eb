#include "moetron/generate/sampling.h"

#include <set>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"

namespace moetron {
namespace {

const RandomStream kRandom(1, 0, "test");

std::set<int32_t> drawn(const at::Tensor& logits, const SamplingSettings& settings) {
  std::set<int32_t> tokens;
  for (uint64_t i = 0; i < 300; ++i) tokens.insert(choose_token(logits, {}, settings, kRandom, i));
  return tokens;
}

TEST(Sampling, DrawsFromTheLikeliestAlone) {
  const at::Tensor logits = at::tensor({0.3f, 0.5f, 0.1f, 0.4f, 0.2f});
  EXPECT_EQ(drawn(logits, {}), (std::set<int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(drawn(logits, {.top_k = 2}), (std::set<int32_t>{1, 3}));
  EXPECT_EQ(drawn(logits, {.top_k = 1}), (std::set<int32_t>{1}));
  EXPECT_EQ(drawn(logits, {.top_k = 9}), (std::set<int32_t>{0, 1, 2, 3, 4}));
  // Of the three that top-k leaves, with 0.37, 0.33 and 0.30, the first has less than half.
  EXPECT_EQ(drawn(logits, {.top_k = 3, .top_p = 0.5}), (std::set<int32_t>{1, 3}));
}

// Keskar et al.: what was said is less likely, whatever the sign of its logit.
TEST(Sampling, PenaltyMakesRepetitionLessLikely) {
  const at::Tensor logits = at::tensor({2.0f, 1.5f, -1.0f, -1.2f});
  const auto greedy = [&](const std::vector<int32_t>& text, double penalty) {
    const SamplingSettings settings{.greedy = true, .repetition_penalty = penalty};
    return choose_token(logits, text, settings, kRandom, 0);
  };
  EXPECT_EQ(greedy({0, 0, 0}, 1.0), 0);
  EXPECT_EQ(greedy({0, 0, 0}, 1.3), 0);  // once, however often it stands there: 1.54
  EXPECT_EQ(greedy({0}, 1.4), 1);        // 1.43
  const at::Tensor below = at::tensor({-1.0f, -1.2f});
  const SamplingSettings settings{.greedy = true, .repetition_penalty = 1.3};
  EXPECT_EQ(choose_token(below, {0}, settings, kRandom, 0), 1);  // -1.3
}

TEST(Sampling, RefusesWhatIsOutOfRange) {
  EXPECT_NO_THROW(check_sampling({}));
  EXPECT_THROW(check_sampling({.repetition_penalty = 0}), ConfigError);
  EXPECT_THROW(check_sampling({.temperature = -0.1}), ConfigError);
  EXPECT_THROW(check_sampling({.top_k = -1}), ConfigError);
  EXPECT_THROW(check_sampling({.top_p = 1.1}), ConfigError);
}

}  // namespace
}  // namespace moetron
