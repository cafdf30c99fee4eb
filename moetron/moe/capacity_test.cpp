// What a capacity drops, against plain loops over the whole micro-batch, whatever its slices are.
#include "moetron/moe/capacity.h"

#include <algorithm>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

constexpr int64_t kLimitedExperts = 6;
constexpr int64_t kLimitedTopK = 3;
constexpr TokenDropPolicy kPolicies[] = {TokenDropPolicy::kProbs, TokenDropPolicy::kPosition};

// The choices of a whole micro-batch.
struct Choices {
  at::Tensor experts;        // [tokens, kLimitedTopK] int64
  at::Tensor probabilities;  // [tokens, kLimitedTopK] fp32
  int64_t num_tokens() const { return experts.size(0); }
};

// Four values of probability alone, so that most choices have an equal; a quarter of the choices
// goes nowhere, and would come first if it counted.
Choices random_choices(int64_t num_tokens) {
  const at::Tensor experts =
      std::get<1>(at::rand({num_tokens, kLimitedExperts}).topk(kLimitedTopK, -1));
  const at::Tensor is_nowhere = at::rand({num_tokens, kLimitedTopK}).lt(0.25);
  const at::Tensor probabilities =
      at::randint(1, 5, {num_tokens, kLimitedTopK}).to(at::kFloat).div(8);
  return {experts.masked_fill(is_nowhere, kNotRouted), probabilities.masked_fill(is_nowhere, 1)};
}

template <class T>
std::vector<T> values_of(const at::Tensor& x) {
  const at::Tensor flat = x.contiguous();
  return {flat.const_data_ptr<T>(), flat.const_data_ptr<T>() + flat.numel()};
}

// A choice stays if fewer than `capacity` others of its expert are preferred to it.
std::vector<int64_t> kept_by_loops(const Choices& choices, int64_t capacity,
                                   TokenDropPolicy policy) {
  const auto experts = values_of<int64_t>(choices.experts);
  const auto probabilities = values_of<float>(choices.probabilities);
  std::vector<int64_t> kept = experts;
  for (size_t i = 0; i < experts.size(); ++i) {
    int64_t num_preferred = 0;
    for (size_t j = 0; j < experts.size(); ++j) {
      if (i == j || experts[i] != experts[j]) continue;
      const bool decides_by_position =
          policy == TokenDropPolicy::kPosition || probabilities[i] == probabilities[j];
      if (decides_by_position ? j < i : probabilities[j] > probabilities[i]) ++num_preferred;
    }
    if (num_preferred >= capacity) kept[i] = kNotRouted;
  }
  return kept;
}

std::vector<int64_t> kept_on_one_rank(const Choices& choices, int64_t capacity,
                                      TokenDropPolicy policy) {
  return values_of<int64_t>(drop_over_capacity(choices.experts, choices.probabilities,
                                               {nullptr, choices.num_tokens()}, kLimitedExperts,
                                               capacity, policy));
}

// Rows of the fullest expert.
int64_t fullest(const std::vector<int64_t>& experts) {
  int64_t most = 0;
  for (int64_t e = 0; e < kLimitedExperts; ++e) {
    most = std::max<int64_t>(most, std::count(experts.begin(), experts.end(), e));
  }
  return most;
}

class DropTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(11); }
};

TEST_F(DropTest, CapacityIsRoundedUpForFactorsBelowOneToo) {
  EXPECT_EQ(expert_capacity(8, 2, 4, 0.5), 2);
  EXPECT_EQ(expert_capacity(9, 2, 4, 0.5), 3);  // 2.25
  EXPECT_EQ(expert_capacity(1, 1, 8, 4.0), 1);  // 0.5
  EXPECT_EQ(expert_capacity(6, 2, 8, 2.0), 3);  // exactly
  EXPECT_EQ(expert_capacity(4096, 8, 128, 1.25), 320);
  EXPECT_EQ(expert_capacity(20, 2, 4, 1.1), 11);  // exactly, though 10 * 1.1 rounds above it
  EXPECT_EQ(expert_capacity(4097, 8, 128, 1.25), 321);
  EXPECT_EQ(expert_capacity(8, 2, 4, 2.0), 8);    // exactly all tokens
  EXPECT_EQ(expert_capacity(8, 2, 4, 2.5), 8);    // a token chooses an expert once
  EXPECT_EQ(expert_capacity(8, 2, 4, 1e300), 8);  // beyond 64 bits
}

// 13 tokens leave padding on 2, 3 and 4 slices; with 2 tokens or 1, slices hold nothing else.
TEST_F(DropTest, EverySliceKeepsWhatTheLoopsKeep) {
  for (const int64_t num_tokens : {13, 12, 2, 1}) {
    const Choices choices = random_choices(num_tokens);
    for (const auto policy : kPolicies) {
      for (const int64_t capacity : {1, 2, 3, 100}) {
        const auto expected = kept_by_loops(choices, capacity, policy);
        for (const int slices : {1, 2, 3, 4}) {
          std::vector<std::vector<int64_t>> kept(slices);
          run_ranks(slices, [&](Communicator& world) {
            const TokenLayout layout{&world, num_tokens};
            const at::Tensor experts = slice_tokens(choices.experts, layout).clone();
            const at::Tensor probabilities = slice_tokens(choices.probabilities, layout).clone();
            // Padding must not take anybody's place, whatever it holds.
            experts.slice(0, layout.num_local()).fill_(0);
            probabilities.slice(0, layout.num_local()).fill_(1);
            const at::Tensor mine = drop_over_capacity(experts, probabilities, layout,
                                                       kLimitedExperts, capacity, policy);
            ASSERT_EQ(mine.sizes(), experts.sizes());
            const at::Tensor padding = mine.slice(0, layout.num_local());
            EXPECT_TRUE(padding.eq(kNotRouted).all().item<bool>());
            kept[world.rank()] = values_of<int64_t>(mine.slice(0, 0, layout.num_local()));
          });
          std::vector<int64_t> all;
          for (const auto& part : kept) all.insert(all.end(), part.begin(), part.end());
          EXPECT_EQ(all, expected) << num_tokens << " tokens on " << slices << " slices, capacity "
                                   << capacity << ", policy " << static_cast<int>(policy);
        }
      }
    }
  }
}

TEST_F(DropTest, DropsNothingUntilTheFullestExpertIsOverCapacity) {
  const Choices choices = random_choices(40);
  const auto before = values_of<int64_t>(choices.experts);
  const int64_t most = fullest(before);
  for (const auto policy : kPolicies) {
    EXPECT_EQ(kept_on_one_rank(choices, 1000, policy), before);
    EXPECT_EQ(kept_on_one_rank(choices, most, policy), before);
    const auto kept = kept_on_one_rank(choices, most - 1, policy);
    EXPECT_EQ(fullest(kept), most - 1);
    EXPECT_EQ(values_of<int64_t>(choices.experts), before);  // the caller's stays as it was
  }
}

TEST_F(DropTest, ACapacityOfOneKeepsTheFirstOrTheMostProbable) {
  // Expert 0 is chosen by tokens 0, 1, 2; expert 1 by tokens 1 and 3, with equal probabilities.
  const Choices choices{
      at::tensor({0, -1, -1, 0, 1, -1, 0, -1, -1, 1, -1, -1}, at::kLong).view({4, kLimitedTopK}),
      at::tensor({.2, .9, .9, .5, .4, .9, .3, .9, .9, .4, .9, .9}, at::kFloat)
          .view({4, kLimitedTopK})};
  EXPECT_EQ(kept_on_one_rank(choices, 1, TokenDropPolicy::kProbs),
            (std::vector<int64_t>{-1, -1, -1, 0, 1, -1, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(kept_on_one_rank(choices, 1, TokenDropPolicy::kPosition),
            (std::vector<int64_t>{0, -1, -1, -1, 1, -1, -1, -1, -1, -1, -1, -1}));
}

TEST_F(DropTest, EqualProbabilitiesAreDecidedByPosition) {
  Choices choices = random_choices(40);
  choices.probabilities.fill_(0.5);
  const auto by_position = kept_on_one_rank(choices, 4, TokenDropPolicy::kPosition);
  EXPECT_EQ(kept_on_one_rank(choices, 4, TokenDropPolicy::kProbs), by_position);
  EXPECT_NE(by_position, values_of<int64_t>(choices.experts));
}

TEST_F(DropTest, ChoicesThatAllGoNowhereStayThere) {
  const Choices choices{at::full({5, kLimitedTopK}, kNotRouted, at::kLong),
                        at::rand({5, kLimitedTopK})};
  for (const auto policy : kPolicies) {
    EXPECT_EQ(kept_on_one_rank(choices, 1, policy),
              std::vector<int64_t>(5 * kLimitedTopK, kNotRouted));
  }
}

}  // namespace
}  // namespace moetron
