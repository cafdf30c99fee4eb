#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/kernels/kernel_test_support.h"
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

MicroBatch sequences(int64_t count, int64_t length, Communicator* group = nullptr) {
  return make_micro_batch(at::zeros({count, length}, at::kLong), /*labels=*/{}, group);
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
  const MicroBatch tokens = sequences(2, 5);
  const RouterOutput output = router.forward(x, tokens, true, nullptr, run);
  // One group of two experts kept: both are chosen, so the pair lies in one group.
  const at::Tensor groups = output.routing.experts.floor_divide(2);
  EXPECT_TRUE(at::equal(groups.select(1, 0), groups.select(1, 1)));
  EXPECT_EQ(router.counts().sum().item<int64_t>(), 2 * 5 * 2);
  // Weights are the unbiased sigmoids.
  router.visit([](Parameter& p) {
    if (p.role() == Role::kBuffer) p.value().fill_(0).slice(0, 6).fill_(10);
  });
  const RouterOutput biased = router.forward(x, tokens, false, nullptr, run);
  EXPECT_TRUE(biased.routing.experts.ge(6).all().item<bool>());
  EXPECT_LE(biased.routing.probabilities.max().item<float>(), 1.0f);
}

TEST_F(MoeTest, EqualScoresChooseTheLowestExperts) {
  Router router("gate.", small_router(), at::kFloat);  // weights are zero: all scores equal
  SegmentRun run(false);
  const at::Tensor experts =
      router.forward(at::randn({3, 16}), sequences(1, 3), false, nullptr, run).routing.experts;
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

TEST_F(MoeTest, AuxLossOfAnEvenRouterIsOnePerToken) {
  for (const auto kind : {RouterSettings::AuxLoss::kSequence, RouterSettings::AuxLoss::kBatch}) {
    RouterSettings s = small_router();
    s.top_k = s.num_experts;  // every expert chosen: f_e = 1
    s.aux_loss = kind;
    s.aux_loss_coeff = 0.5;
    Router router("gate.", s, at::kFloat);
    randomize(router);
    SegmentRun run(true);
    const RouterOutput output =
        router.forward(run.input(at::randn({21, 16})), sequences(3, 7), false, nullptr, run);
    EXPECT_NEAR(output.aux_loss.item<double>() / (0.5 * 3 * 7), 1, kRounding);
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
      if (sigmoid) s.random_seed = 7;
      const int64_t num_tokens = 10;  // two sequences of five
      const at::Tensor x = at::randn({num_tokens, 16}), d_p = at::randn({num_tokens, 2});
      Router whole("gate.", s, at::kFloat);
      randomize(whole);
      SegmentRun run(true);
      const RouterOutput all = whole.forward(run.input(x), sequences(2, 5), true, nullptr, run);
      run.output(all.routing.probabilities);
      run.output(all.aux_loss);
      const at::Tensor d_x = run.backward({d_p, at::full({}, 0.1)})[0];
      at::Tensor weight;
      whole.visit([&](Parameter& p) { weight = p.value(); });
      run_ranks(3, [&](Communicator& world) {
        const MicroBatch slice = sequences(2, 5, &world);
        const TokenLayout& layout = slice.layout;
        Router router("gate.", s, at::kFloat);
        router.visit([&](Parameter& p) { p.value().copy_(weight); });
        SegmentRun part(true);
        const RouterOutput mine =
            router.forward(part.input(slice_tokens(x, layout)), slice, true, nullptr, part);
        part.output(mine.routing.probabilities);
        const at::Tensor aux = part.output(mine.aux_loss).to(at::kDouble);
        EXPECT_TRUE(at::equal(gather_tokens(mine.routing.experts, layout), all.routing.experts));
        EXPECT_TRUE(mine.routing.experts.narrow(0, layout.num_local(), 4 - layout.num_local())
                        .eq(kNotRouted)
                        .all()
                        .item<bool>());
        world.all_reduce(aux).wait();
        EXPECT_NEAR(aux.item<double>() / all.aux_loss.item<double>(), 1, kRounding);
        world.all_reduce(router.counts()).wait();
        EXPECT_TRUE(at::equal(router.counts(), whole.counts()));
        const at::Tensor d = part.backward({slice_tokens(d_p, layout), at::full({}, 0.1)})[0];
        EXPECT_LE(relative_error(gather_tokens(d, layout), d_x), kRounding);
      });
      // A recomputation keeps the choice, and with it the probabilities, whatever the bias says.
      SegmentRun again(true);
      const RouterOutput second =
          whole.forward(again.input(x), sequences(2, 5), false, &all.routing, again);
      EXPECT_TRUE(at::equal(second.routing.probabilities, all.routing.probabilities));
    }
  }
}

// Megatron's RandomSTE: weights are those of random logits, the gradient reaches the real ones.
TEST_F(MoeTest, RandomRoutesAreEvenAndTheGradientGoesStraightThrough) {
  RouterSettings s = small_router();
  s.sigmoid = true;
  s.random_seed = 1;
  const MicroBatch micro_batch = sequences(4, 512);
  const at::Tensor x = at::randn({2048, 16});
  Router router("gate.", s, at::kFloat);
  randomize(router);
  at::Tensor weight;
  router.visit([&](Parameter& p) { weight = p.value(); });
  SegmentRun run(true);
  const Routing routing = router.forward(run.input(x), micro_batch, true, nullptr, run).routing;
  const at::Tensor p = run.output(routing.probabilities).detach();
  EXPECT_LT(router.counts().max().item<int64_t>(), 1.1 * 2048 * 2 / 8);
  EXPECT_GT(p.std().item<double>(), 0.01);
  const at::Tensor d_x = run.backward({at::ones_like(p)})[0];
  const at::Tensor d_logits = at::zeros({2048, 8}).scatter_(1, routing.experts, p * (1 - p));
  EXPECT_LE(relative_error(d_x, d_logits.matmul(weight)), kRounding);
  s.random_seed = 2;
  Router other("gate.", s, at::kFloat);
  SegmentRun second(true);
  const Routing routes = other.forward(second.input(x), micro_batch, true, nullptr, second).routing;
  EXPECT_FALSE(at::equal(routes.experts, routing.experts));
}

// What a router makes of a micro-batch, with the gradient of its input.
struct Routed {
  RouterOutput output;
  at::Tensor counts, aux_loss, d_x;
};

Routed route(Router& router, const at::Tensor& x, const MicroBatch& micro_batch) {
  SegmentRun run(true);
  Routed routed{router.forward(run.input(x), micro_batch, true, nullptr, run)};
  const at::Tensor probabilities = run.output(routed.output.routing.probabilities);
  routed.aux_loss = run.output(routed.output.aux_loss);
  routed.d_x = run.backward({at::ones_like(probabilities), at::full({}, 0.1)})[0];
  routed.counts = router.counts().clone();
  router.counts().zero_();
  return routed;
}

// Two sequences of five tokens, of which the last one and the last three are padding, against the
// same without padding: loads, capacity, aux loss and gradients are those of the others.
TEST_F(MoeTest, PaddingCountsNowhere) {
  const std::vector<int64_t> real = {0, 1, 2, 3, 5, 6};
  const at::Tensor places = at::tensor(real);
  const at::Tensor is_padding = at::ones({10}, at::kBool).index_fill_(0, places, false);
  const at::Tensor x = at::randn({10, 16});
  for (const auto kind : {RouterSettings::AuxLoss::kSequence, RouterSettings::AuxLoss::kBatch}) {
    for (const std::optional<double> factor : {std::optional<double>(), std::optional(0.7)}) {
      RouterSettings s = small_router();
      s.sigmoid = kind == RouterSettings::AuxLoss::kSequence;
      s.aux_loss = kind;
      s.aux_loss_coeff = 0.5;
      s.capacity_factor = factor;
      Router router("gate.", s, at::kFloat);
      randomize(router);
      at::Tensor weight;
      router.visit([&](Parameter& p) { weight = p.value(); });
      // Without padding: one row, or a row of each sequence, whose losses add up.
      const Routed whole = route(router, x.index_select(0, places), sequences(1, 6));
      double aux = whole.aux_loss.item<double>();
      if (kind == RouterSettings::AuxLoss::kSequence) {
        aux = route(router, x.narrow(0, 0, 4), sequences(1, 4)).aux_loss.item<double>() +
              route(router, x.narrow(0, 5, 2), sequences(1, 2)).aux_loss.item<double>();
      }
      for (const int ranks : {1, 3}) {
        run_ranks(ranks, [&](Communicator& world) {
          MicroBatch padded = sequences(2, 5, ranks == 1 ? nullptr : &world);
          const TokenLayout& layout = padded.layout;
          padded.num_real_tokens = 6;
          padded.padding = is_padding.index_select(0, layout.token_of_row(at::kCPU));
          Router mine("gate.", s, at::kFloat);
          mine.visit([&](Parameter& p) { p.value().copy_(weight); });
          const Routed part = route(mine, slice_tokens(x, layout), padded);
          const at::Tensor experts = gather_tokens(part.output.routing.experts, layout);
          EXPECT_TRUE(at::equal(experts.index_select(0, places), whole.output.routing.experts));
          EXPECT_TRUE(experts.index({is_padding}).eq(kNotRouted).all().item<bool>());
          const at::Tensor counts = part.counts, loss = part.aux_loss.to(at::kDouble);
          world.all_reduce(counts).wait();
          world.all_reduce(loss).wait();
          EXPECT_TRUE(at::equal(counts, whole.counts));
          EXPECT_NEAR(loss.item<double>() / aux, 1, kRounding);
          const at::Tensor d_x = gather_tokens(part.d_x, layout);
          EXPECT_EQ(d_x.index({is_padding}).abs().max().item<double>(), 0);
          if (kind == RouterSettings::AuxLoss::kSequence) return;
          EXPECT_LE(relative_error(d_x.index_select(0, places), whole.d_x), kRounding);
        });
      }
    }
  }
}

}  // namespace
}  // namespace moetron
