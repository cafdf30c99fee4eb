#include <cmath>
#include <gmock/gmock.h>
#include <numbers>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/optim/lr_schedule.h"

namespace moetron {
namespace {

using testing::HasSubstr;

constexpr double kLr = 1e-2;
const AdamWSettings kSettings{0.9, 0.95, 1e-8, 0.1};

// The update written with whole-tensor operations in fp64.
struct Reference {
  at::Tensor value, exp_avg, exp_avg_sq;  // fp64

  explicit Reference(const at::Tensor& start)
      : value(start.to(at::kDouble)),
        exp_avg(at::zeros_like(value)),
        exp_avg_sq(at::zeros_like(value)) {}

  void step(const at::Tensor& raw_grad, double weight_decay, double t) {
    const at::Tensor grad = raw_grad.to(at::kDouble);
    exp_avg = kSettings.beta1 * exp_avg + (1 - kSettings.beta1) * grad;
    exp_avg_sq = kSettings.beta2 * exp_avg_sq + (1 - kSettings.beta2) * grad * grad;
    const at::Tensor mean = exp_avg / (1 - std::pow(kSettings.beta1, t));
    const at::Tensor deviation = (exp_avg_sq / (1 - std::pow(kSettings.beta2, t))).sqrt();
    value = value * (1 - kLr * weight_decay) - kLr * mean / (deviation + kSettings.eps);
  }
};

TEST(AdamW, FollowsTheFormulaWithAndWithoutWeightDecay) {
  at::manual_seed(1);
  ParameterSettings no_decay;
  no_decay.weight_decay = false;
  Parameter weight("w", {70, 1001}, at::kFloat, {});
  Parameter norm("n", {33}, at::kFloat, no_decay);
  weight.value().normal_();
  norm.value().fill_(1);
  Reference want_weight(weight.value()), want_norm(norm.value());
  AdamW adamw({&weight, &norm}, kSettings);
  for (int step = 1; step <= 5; ++step) {
    weight.grad().normal_(0, 3);
    norm.grad().normal_();
    want_weight.step(weight.grad() * 0.25, kSettings.weight_decay, step);
    want_norm.step(norm.grad() * 0.25, 0, step);
    adamw.step(kLr, step, 0.25);
  }
  EXPECT_TRUE(at::allclose(weight.value().to(at::kDouble), want_weight.value, 3e-7, 3e-7));
  EXPECT_TRUE(at::allclose(norm.value().to(at::kDouble), want_norm.value, 3e-7, 3e-7));
}

TEST(AdamW, ABf16ValueIsItsMasterRounded) {
  at::manual_seed(2);
  Parameter parameter("w", {4099}, at::kBFloat16, {});
  parameter.initialize(3, 1);
  Reference want(parameter.value());
  AdamW adamw({&parameter}, kSettings);
  for (int step = 1; step <= 20; ++step) {
    parameter.grad().normal_();
    want.step(parameter.grad(), kSettings.weight_decay, step);
    adamw.step(kLr, step);
  }
  const std::vector<NamedSlice> states = adamw.states();
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[2].name, "master.w");
  EXPECT_TRUE(at::allclose(states[2].view.to(at::kDouble), want.value, 1e-6, 1e-6));
  EXPECT_TRUE(at::equal(parameter.value(), states[2].view.to(at::kBFloat16)));
  parameter.value().fill_(2);
  adamw.reset_masters();
  EXPECT_TRUE(at::equal(states[2].view, at::full({4099}, 2.0)));
}

TEST(AdamW, ThreadCountDoesNotChangeABit) {
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (const int used : {1, 2}) {
    at::set_num_threads(used);
    at::manual_seed(4);
    Parameter parameter("w", {300001}, at::kFloat, {});
    parameter.initialize(5, 1);
    parameter.grad().normal_();
    AdamW adamw({&parameter}, kSettings);
    adamw.step(kLr, 1);
    results.push_back(parameter.value());
    results.push_back(at::full({}, global_grad_norm({&parameter}).norm, at::kDouble));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(results[0], results[2]));
  EXPECT_EQ(results[1].item<double>(), results[3].item<double>());
}

TEST(AdamW, SkipsTiedAndFrozenParameters) {
  ParameterSettings frozen;
  frozen.trainable = false;
  Parameter embedding("embed", {4, 2}, at::kFloat, {});
  Parameter head("head", {4, 2}, at::kFloat, {});
  Parameter bias("bias", {4}, at::kFloat, frozen);
  head.tie_to(embedding);
  embedding.grad().fill_(1);
  head.grad().fill_(1);
  bias.grad().fill_(1);
  AdamW adamw({&embedding, &head, &bias}, kSettings);
  EXPECT_EQ(adamw.states().size(), 2u);
  adamw.step(kLr, 1);
  EXPECT_NEAR(embedding.value().max().item<float>(), -kLr, 1e-7);  // one update, not two
  EXPECT_EQ(bias.value().abs().max().item<float>(), 0);
  adamw.zero_grads();
  EXPECT_EQ(embedding.grad().abs().sum().item<float>(), 0);
  EXPECT_EQ(head.grad().abs().sum().item<float>(), 0);
}

TEST(AdamW, StatesCarryTheNamesOfPieces) {
  Parameter gate_up("gate_up", {6, 2}, at::kFloat,
                    {piece_of_rows("gate", {3, 2}, 0, 2), piece_of_rows("up", {3, 2}, 3, 2)}, {});
  gate_up.grad().slice(0, 3).fill_(1);
  AdamW adamw({&gate_up}, kSettings);
  adamw.step(kLr, 1);
  std::vector<std::string> names;
  for (const NamedSlice& state : adamw.states()) names.push_back(state.name);
  EXPECT_THAT(names, testing::ElementsAre("exp_avg.gate", "exp_avg.up", "exp_avg_sq.gate",
                                          "exp_avg_sq.up"));
  EXPECT_EQ(adamw.states()[0].view.sum().item<float>(), 0);
  EXPECT_NEAR(adamw.states()[1].view.sum().item<float>(), 0.6, 1e-6);
}

TEST(AdamW, RefusesSettingsOutOfRange) {
  EXPECT_THROW(AdamW({}, AdamWSettings{1.0, 0.9, 1e-8, 0}), ConfigError);
  EXPECT_THROW(AdamW({}, AdamWSettings{0.9, -0.1, 1e-8, 0}), ConfigError);
  EXPECT_THROW(AdamW({}, AdamWSettings{0.9, 0.9, 1e-8, -1}), ConfigError);
}

TEST(GradNorm, DoesNotDependOnFusing) {
  at::manual_seed(6);
  const int64_t hidden = 257;
  Parameter fused("qk", {900, hidden}, at::kFloat,
                  {piece_of_rows("z.q", {500, hidden}, 0, hidden),
                   piece_of_rows("a.k", {400, hidden}, 500, hidden)},
                  {});
  Parameter q("z.q", {500, hidden}, at::kFloat, {}), k("a.k", {400, hidden}, at::kFloat, {});
  // The transposed storage of q: its elements in another order of memory.
  Parameter turned("turned", {hidden, 500}, at::kFloat,
                   {{"z.q", {500, hidden}, {0, 0}, {{500, hidden}, {1, 500}, 0}}}, {});
  fused.grad().normal_();
  q.grad().copy_(fused.grad().slice(0, 0, 500));
  k.grad().copy_(fused.grad().slice(0, 500));
  turned.grad().copy_(q.grad().t());
  const GradNorm whole = global_grad_norm({&fused});
  EXPECT_EQ(whole.norm, global_grad_norm({&q, &k}).norm);
  EXPECT_EQ(whole.norm, global_grad_norm({&k, &turned}).norm);
  const double want = fused.grad().to(at::kDouble).square().sum().sqrt().item<double>();
  EXPECT_NEAR(whole.norm, want, want * 1e-13);
  EXPECT_EQ(whole.non_finite, "");
}

TEST(GradNorm, NamesTheFirstNonFiniteTensor) {
  Parameter b("b", {5}, at::kFloat, {}), c("c", {5}, at::kFloat, {}), a("a", {5}, at::kFloat, {});
  for (Parameter* parameter : {&a, &b, &c}) parameter->grad().fill_(1);
  c.grad()[0] = std::numeric_limits<float>::infinity();
  b.grad()[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(global_grad_norm({&c, &b, &a}).non_finite, "b");
  // The square of a large fp32 number is a finite fp64 number.
  b.grad().fill_(3e38f);
  c.grad().fill_(0);
  EXPECT_EQ(global_grad_norm({&c, &b, &a}).non_finite, "");
}

TEST(GradNorm, ClipsAsMegatronDoes) {
  EXPECT_EQ(clip_coefficient(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_coefficient(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_coefficient(4.0, 0.0), 1.0);
}

TEST(LrSchedule, WarmsUpAndDecays) {
  LrSchedule s{1e-3, 1e-4, 1e-5, 10, 110, LrDecayStyle::kCosine};
  check_lr_schedule(s);
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1e-5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 5), 1e-5 + 0.5 * (1e-3 - 1e-5));
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 60), (1e-3 + 1e-4) / 2);  // half of the cosine
  EXPECT_NEAR(learning_rate(s, 35), 1e-4 + 9e-4 * (0.5 + std::numbers::sqrt2 / 4), 1e-18);
  EXPECT_DOUBLE_EQ(learning_rate(s, 110), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 111), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 100000), 1e-4);
  s.style = LrDecayStyle::kLinear;
  EXPECT_DOUBLE_EQ(learning_rate(s, 35), 1e-4 + 0.75 * 9e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 110), 1e-4);
  s.style = LrDecayStyle::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(s, 5), 1e-5 + 0.5 * (1e-3 - 1e-5));
  EXPECT_DOUBLE_EQ(learning_rate(s, 100000), 1e-3);
}

TEST(LrSchedule, WithoutWarmupStartsAtTheHighest) {
  const LrSchedule s{2e-3, 0, 0, 0, 4, LrDecayStyle::kLinear};
  check_lr_schedule(s);
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1), 1.5e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0);
}

TEST(LrSchedule, RefusesAWarmupAsLongAsTheDecay) {
  const LrSchedule s{1e-3, 0, 0, 10, 10, LrDecayStyle::kCosine};
  try {
    check_lr_schedule(s);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("lr-warmup-iters (10)"));
    EXPECT_THAT(error.what(), HasSubstr("lr-decay-iters (10)"));
  }
  EXPECT_THROW(check_lr_schedule({1e-3, 1e-2, 0, 0, 10, LrDecayStyle::kLinear}), ConfigError);
}

}  // namespace
}  // namespace moetron
