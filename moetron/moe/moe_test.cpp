#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/moe/router.h"

namespace moetron {
namespace {

RouterSettings small_router() {
  RouterSettings s;
  s.hidden_size = 16;
  s.num_experts = 8;
  s.top_k = 2;
  return s;
}

void randomize(Router& router) {
  router.visit([](Parameter& p) { p.value().normal_(0, 0.5); });
}

class MoeTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(3); }
};

TEST_F(MoeTest, GroupsLimitTheChoiceAndTheBiasMovesIt) {
  RouterSettings s = small_router();
  s.sigmoid = true;
  s.expert_bias = true;
  s.num_groups = 4;
  s.group_top_k = 1;
  s.group_score_top_two = true;
  Router router("gate.", s, at::kFloat);
  randomize(router);
  SegmentRun run(false);
  const at::Tensor x = at::randn({10, 16});
  const RoutedTokens tokens{{nullptr, 10}, 2};
  const RouterOutput output = router.forward(x, tokens, true, nullptr, run);
  // One group of two experts kept: both are chosen, so the pair lies in one group.
  const at::Tensor groups = output.routing.experts.floor_divide(2);
  EXPECT_TRUE(at::equal(groups.select(1, 0), groups.select(1, 1)));
  EXPECT_EQ(router.counts().sum().item<int64_t>(), 2 * 5 * 2);
  // Weights are the unbiased sigmoids.
  router.visit([](Parameter& p) {
    if (!p.settings().trainable) p.value().fill_(0).slice(0, 6).fill_(10);
  });
  const RouterOutput biased = router.forward(x, tokens, false, nullptr, run);
  EXPECT_TRUE(biased.routing.experts.ge(6).all().item<bool>());
  EXPECT_LE(biased.routing.probabilities.max().item<float>(), 1.0f);
}

TEST_F(MoeTest, EqualScoresChooseTheLowestExperts) {
  Router router("gate.", small_router(), at::kFloat);  // weights are zero: all scores equal
  SegmentRun run(false);
  const at::Tensor experts =
      router.forward(at::randn({3, 16}), {{nullptr, 3}, 1}, false, nullptr, run).routing.experts;
  EXPECT_TRUE(at::equal(experts, at::arange(2, at::kLong).repeat({3, 1})));
}

TEST_F(MoeTest, TheBiasFollowsTheLoad) {
  RouterSettings s = small_router();
  s.expert_bias = true;
  s.bias_update_rate = 0.001;
  Router router("gate.", s, at::kFloat);
  router.counts().copy_(at::tensor(std::vector<int64_t>{4, 4, 4, 4, 4, 4, 1, 7}, at::kLong));
  router.update_bias();
  at::Tensor bias;
  router.visit([&](Parameter& p) { bias = p.value(); });
  EXPECT_FLOAT_EQ(bias[0].item<float>(), 0);
  EXPECT_FLOAT_EQ(bias[6].item<float>(), 0.001f);
  EXPECT_FLOAT_EQ(bias[7].item<float>(), -0.001f);
  EXPECT_EQ(router.counts().sum().item<int64_t>(), 0);
}

TEST_F(MoeTest, AuxiliaryLossOfAnEvenRouterIsOnePerToken) {
  for (const auto kind : {RouterSettings::AuxLoss::kSequence, RouterSettings::AuxLoss::kBatch}) {
    RouterSettings s = small_router();
    s.top_k = s.num_experts;  // every expert chosen: f_e = 1
    s.aux_loss = kind;
    s.aux_loss_coeff = 0.5;
    Router router("gate.", s, at::kFloat);
    randomize(router);
    SegmentRun run(true);
    const RouterOutput output =
        router.forward(run.input(at::randn({21, 16})), {{nullptr, 21}, 3}, false, nullptr, run);
    EXPECT_NEAR(output.aux_loss.item<double>(), 0.5 * 3 * 7, 1e-5);
  }
}

// Each tensor-parallel rank routes its slice; 3 ranks hold 11 tokens of 11, one of which is
// padding.
TEST_F(MoeTest, SlicesOfTheTokensRouteAsTheWhole) {
  for (const auto kind : {RouterSettings::AuxLoss::kSequence, RouterSettings::AuxLoss::kBatch}) {
    for (const bool sigmoid : {false, true}) {
      RouterSettings s = small_router();
      s.sigmoid = sigmoid;
      s.normalize = true;
      s.aux_loss = kind;
      s.aux_loss_coeff = 0.5;
      const int64_t num_tokens = 10;  // two sequences of five
      const at::Tensor x = at::randn({num_tokens, 16}), d_p = at::randn({num_tokens, 2});
      Router whole("gate.", s, at::kFloat);
      randomize(whole);
      SegmentRun run(true);
      const RouterOutput all =
          whole.forward(run.input(x), {{nullptr, num_tokens}, 2}, true, nullptr, run);
      run.output(all.routing.probabilities);
      run.output(all.aux_loss);
      const at::Tensor d_x = run.backward({d_p, at::full({}, 0.1)})[0];
      at::Tensor weight;
      whole.visit([&](Parameter& p) { weight = p.value(); });
      run_ranks(3, [&](Communicator& world) {
        const TokenShards shards{&world, num_tokens};
        Router router("gate.", s, at::kFloat);
        router.visit([&](Parameter& p) { p.value().copy_(weight); });
        SegmentRun part(true);
        const RouterOutput mine =
            router.forward(part.input(slice_tokens(x, shards)), {shards, 2}, true, nullptr, part);
        part.output(mine.routing.probabilities);
        const at::Tensor aux = part.output(mine.aux_loss).to(at::kDouble);
        EXPECT_TRUE(at::equal(gather_tokens(mine.routing.experts, shards), all.routing.experts));
        EXPECT_TRUE(mine.routing.experts.narrow(0, shards.num_local(), 4 - shards.num_local())
                        .eq(kNotRouted)
                        .all()
                        .item<bool>());
        world.all_reduce(aux).wait();
        EXPECT_NEAR(aux.item<double>(), all.aux_loss.item<double>(), 1e-6);
        world.all_reduce(router.counts()).wait();
        EXPECT_TRUE(at::equal(router.counts(), whole.counts()));
        const at::Tensor d = part.backward({slice_tokens(d_p, shards), at::full({}, 0.1)})[0];
        EXPECT_TRUE(at::allclose(gather_tokens(d, shards), d_x, 1e-5, 1e-7));
      });
      // A recomputation keeps the choice, and with it the probabilities, whatever the bias says.
      SegmentRun again(true);
      const RouterOutput second =
          whole.forward(again.input(x), {{nullptr, num_tokens}, 2}, false, &all.routing, again);
      EXPECT_TRUE(at::equal(second.routing.probabilities, all.routing.probabilities));
    }
  }
}

}  // namespace
}  // namespace moetron
