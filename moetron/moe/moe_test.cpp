#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/moe/experts.h"
#include "moetron/moe/local_dispatcher.h"
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
  const at::Tensor x = at::randn({2, 5, 16});
  const RouterOutput output = router.forward(x, true, run);
  // One group of two experts kept: both are chosen, so the pair lies in one group.
  const at::Tensor groups = output.routing.experts.floor_divide(2);
  EXPECT_TRUE(at::equal(groups.select(1, 0), groups.select(1, 1)));
  EXPECT_EQ(router.counts().sum().item<int64_t>(), 2 * 5 * 2);
  // Weights are the unbiased sigmoids.
  router.visit([](Parameter& p) {
    if (!p.settings().trainable) p.value().fill_(0).slice(0, 6).fill_(10);
  });
  const RouterOutput biased = router.forward(x, false, run);
  EXPECT_TRUE(biased.routing.experts.ge(6).all().item<bool>());
  EXPECT_LE(biased.routing.probabilities.max().item<float>(), 1.0f);
}

TEST_F(MoeTest, EqualScoresChooseTheLowestExperts) {
  Router router("gate.", small_router(), at::kFloat);  // weights are zero: all scores equal
  SegmentRun run(false);
  const at::Tensor experts = router.forward(at::randn({1, 3, 16}), false, run).routing.experts;
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
    const RouterOutput output = router.forward(run.input(at::randn({3, 7, 16})), false, run);
    EXPECT_NEAR(output.aux_loss.item<double>(), 0.5 * 3 * 7, 1e-5);
  }
}

// The whole chain router -> dispatch -> experts -> combine against a dense formula under autograd.
TEST_F(MoeTest, ExpertsThroughTheDispatcherMatchTheDenseFormula) {
  const int64_t hidden = 16, width = 6, num_experts = 8, tokens = 9, top_k = 3;
  Experts experts("experts.", num_experts, hidden, width, at::kFloat);
  std::vector<Parameter*> parameters;
  experts.visit([&](Parameter& p) { parameters.push_back(&p); });
  for (Parameter* p : parameters) p->value().normal_();
  const at::Tensor x = at::randn({tokens, hidden}), d_y = at::randn({tokens, hidden});
  Routing routing;  // expert 7 gets nothing
  routing.experts = std::get<1>(at::rand({tokens, num_experts - 1}).topk(top_k, -1));
  routing.probabilities = at::rand({tokens, top_k});

  const auto leaf = [](const at::Tensor& t) { return t.detach().clone().requires_grad_(); };
  const at::Tensor x0 = leaf(x), p0 = leaf(routing.probabilities);
  const at::Tensor w1 = leaf(parameters[0]->value()), w2 = leaf(parameters[1]->value());
  const at::Tensor h = at::einsum("th,eoh->teo", {x0, w1});
  const at::Tensor act = at::silu(h.narrow(2, 0, width)) * h.narrow(2, width, width);
  const at::Tensor each = at::einsum("teo,eho->teh", {act, w2});
  const at::Tensor weights = at::zeros({tokens, num_experts}).scatter(1, routing.experts, p0);
  const at::Tensor y0 = at::einsum("te,teh->th", {weights, each});
  y0.backward(d_y);

  LocalDispatcher dispatcher(num_experts);
  const Dispatched d = dispatcher.dispatch(x, routing);
  SegmentRun run(true);
  const at::Tensor rows = run.input(d.rows), probabilities = run.input(d.probabilities);
  const at::Tensor out = run.output(experts.forward(rows, probabilities, d.rows_per_expert, run));
  EXPECT_TRUE(at::allclose(dispatcher.combine(out, *d.plan), y0, 1e-5, 1e-5));
  const auto grads = run.backward({dispatcher.combine_backward(d_y, *d.plan)});
  const DispatchGrads back = dispatcher.dispatch_backward(grads[0], grads[1], *d.plan);
  run.weight_grads().run();
  EXPECT_TRUE(at::allclose(back.d_hidden, x0.grad(), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(back.d_probabilities, p0.grad(), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(parameters[0]->grad(), w1.grad(), 1e-4, 1e-4));
  EXPECT_TRUE(at::allclose(parameters[1]->grad(), w2.grad(), 1e-4, 1e-4));
}

}  // namespace
}  // namespace moetron
