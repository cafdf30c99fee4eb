#include <algorithm>
#include <cmath>
#include <gmock/gmock.h>
#include <limits>
#include <numbers>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/optim/adamw.h"
#include "moetron/optim/grad_norm.h"
#include "moetron/optim/optim_test_data.h"

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
  const OneRank rank({&weight, &norm});
  AdamW adamw(rank.buckets.owned(), kSettings);
  for (int step = 1; step <= 5; ++step) {
    weight.grad().normal_(0, 3);
    norm.grad().normal_();
    want_weight.step(weight.grad() * 0.25, kSettings.weight_decay, step);
    want_norm.step(norm.grad() * 0.25, 0, step);
    adamw.step(kLr, step, 0.25);
  }
  EXPECT_LE(relative_error(weight.value(), want_weight.value), kRounding / 4);
  EXPECT_LE(relative_error(norm.value(), want_norm.value), kRounding / 4);
}

TEST(AdamW, ABf16ValueIsItsMasterRounded) {
  at::manual_seed(2);
  Parameter parameter("w", {4099}, at::kBFloat16, {});
  parameter.value().normal_();
  Reference want(parameter.value());
  const OneRank rank({&parameter});
  AdamW adamw(rank.buckets.owned(), kSettings);
  for (int step = 1; step <= 20; ++step) {
    parameter.grad().normal_();
    want.step(parameter.grad(), kSettings.weight_decay, step);
    adamw.step(kLr, step);
  }
  const std::vector<NamedSlice> states = adamw.states();
  ASSERT_EQ(states.size(), 3u);
  EXPECT_EQ(states[2].name, "master.w");
  EXPECT_LE(relative_error(states[2].view, want.value), kRounding);
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
    parameter.value().normal_();
    OneRank rank({&parameter});
    parameter.grad().normal_();
    AdamW adamw(rank.buckets.owned(), kSettings);
    adamw.step(kLr, 1);
    results.push_back(parameter.value());
    GradNormMeter meter(rank.buckets.owned(), rank.mesh, false);
    results.push_back(at::full({}, meter.measure().norm, at::kDouble));
  }
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(results[0], results[2]));
  EXPECT_EQ(results[1].item<double>(), results[3].item<double>());
}

TEST(AdamW, SkipsTiedAndFrozenParameters) {
  Parameter embedding("embed", {4, 2}, at::kFloat, {});
  Parameter head("head", {4, 2}, at::kFloat, {});
  Parameter bias("bias", {4}, at::kFloat, {.role = Role::kBuffer});
  head.tie_to(embedding);
  const OneRank rank({&embedding, &head, &bias});
  for (Parameter* parameter : {&embedding, &head}) parameter->grad().fill_(1);
  AdamW adamw(rank.buckets.owned(), kSettings);
  EXPECT_EQ(adamw.states().size(), 2u);
  adamw.step(kLr, 1);
  EXPECT_NEAR(embedding.value().max().item<float>(), -kLr, 1e-7);  // one update, not two
  EXPECT_EQ(bias.value().abs().max().item<float>(), 0);
}

TEST(AdamW, StatesCarryTheNamesOfPieces) {
  Parameter gate_up("gate_up", {6, 2}, at::kFloat,
                    {piece_of_rows("gate", {3, 2}, 0, 2), piece_of_rows("up", {3, 2}, 3, 2)}, {});
  const OneRank rank({&gate_up});
  gate_up.grad().slice(0, 3).fill_(1);
  AdamW adamw(rank.buckets.owned(), kSettings);
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

// The kernel and the loop on the host: the same operations, each rounded alike.
TEST(AdamW, AGpuGivesTheBitsOfTheHost) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Parameter host("w", {301, 77}, dtype, {});
    Parameter gpu("w", {301, 77}, at::TensorOptions(dtype).device(at::kCUDA), {});
    host.initialize(3, 0.5);
    gpu.value().copy_(host.value());
    const OneRank host_rank({&host}), gpu_rank({&gpu});
    AdamW on_host(host_rank.buckets.owned(), kSettings),
        on_gpu(gpu_rank.buckets.owned(), kSettings);
    for (int step = 1; step <= 5; ++step) {
      host.grad().normal_();
      gpu.grad().copy_(host.grad());
      on_host.step(1e-2, step, step == 3 ? 1 : 0.3);
      on_gpu.step(1e-2, step, step == 3 ? 1 : 0.3);
    }
    EXPECT_TRUE(at::equal(gpu.value().cpu(), host.value()));
    const auto wanted = on_host.states(), found = on_gpu.states();
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_TRUE(at::equal(found[i].view.cpu(), wanted[i].view)) << wanted[i].name;
    }
  }
}

// With these gradients.
GradNorm norm_of(const std::vector<std::pair<Parameter*, at::Tensor>>& grads) {
  std::vector<Parameter*> parameters;
  for (const auto& [parameter, grad] : grads) parameters.push_back(parameter);
  OneRank rank(parameters);
  GradNormMeter meter(rank.buckets.owned(), rank.mesh, false);
  for (const auto& [parameter, grad] : grads) parameter->grad().copy_(grad);
  return meter.measure();
}

TEST(GradNorm, DoesNotDependOnFusing) {
  at::manual_seed(6);
  const int64_t hidden = 257;
  Parameter fused("qk", {900, hidden}, at::kFloat,
                  {piece_of_rows("z.q", {500, hidden}, 0, hidden),
                   piece_of_rows("a.k", {400, hidden}, 500, hidden)},
                  {});
  Parameter q("z.q", {500, hidden}, at::kFloat, {}), k("a.k", {400, hidden}, at::kFloat, {});
  const at::Tensor grad = at::randn({900, hidden});
  const GradNorm whole = norm_of({{&fused, grad}});
  const at::Tensor d_q = grad.slice(0, 0, 500), d_k = grad.slice(0, 500);
  EXPECT_EQ(whole.norm, norm_of({{&q, d_q}, {&k, d_k}}).norm);
  EXPECT_EQ(whole.norm, norm_of({{&k, d_k}, {&q, d_q}}).norm);
  const double want = grad.to(at::kDouble).square().sum().sqrt().item<double>();
  EXPECT_NEAR(whole.norm, want, want * 1e-13);
  EXPECT_EQ(whole.non_finite, "");
}

// Nor on the order, nor on how a tensor is divided: of a hundred divisions none changes a bit.
TEST(GradNorm, IsTheExactSumRoundedOnce) {
  at::manual_seed(7);
  Parameter w("w", {300, 500}, at::kFloat, {}), a("a", {77}, at::kFloat, {});
  const at::Tensor d_w = at::randn({300, 500}), d_a = at::randn(77) * 1e4;
  const double norm = norm_of({{&w, d_w}, {&a, d_a}}).norm;
  const auto square_root_of = [&](const std::vector<int64_t>& cuts, const at::Tensor& values) {
    CarriedSum sum = sum_of_squares(d_a.const_data_ptr<float>(), 77);
    for (size_t i = 1; i < cuts.size(); ++i) {
      sum.add(sum_of_squares(values.const_data_ptr<float>() + cuts[i - 1], cuts[i] - cuts[i - 1]));
    }
    return std::sqrt(sum.sum + sum.rest);
  };
  std::vector<double> plain;
  for (int64_t i = 0; i < 100; ++i) {
    EXPECT_EQ(square_root_of({0, 64 * i, 1000 * i + 3, d_w.numel()}, d_w), norm);
    const at::Tensor shuffled = d_w.view(-1).index({at::randperm(d_w.numel())});
    EXPECT_EQ(square_root_of({0, d_w.numel()}, shuffled), norm);
    plain.push_back(shuffled.to(at::kDouble).square().sum().item<double>());
  }
  EXPECT_NE(*std::min_element(plain.begin(), plain.end()),
            *std::max_element(plain.begin(), plain.end()));  // which plain sums do not give
}

TEST(GradNorm, NamesTheFirstNonFiniteTensor) {
  Parameter b("b", {5}, at::kFloat, {}), c("c", {5}, at::kFloat, {}), a("a", {5}, at::kFloat, {});
  const at::Tensor one = at::ones(5), infinite = at::ones(5), undefined = at::ones(5);
  infinite[0] = std::numeric_limits<float>::infinity();
  undefined[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(norm_of({{&c, infinite}, {&b, undefined}, {&a, one}}).non_finite, "b");
  // The square of a large fp32 number is a finite fp64 number.
  EXPECT_EQ(norm_of({{&c, one}, {&b, at::full(5, 3e38f)}, {&a, one}}).non_finite, "");
}

TEST(GradNorm, OnAGpuIsTheHosts) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no GPU";
  at::manual_seed(9);
  const auto cuda = at::TensorOptions(at::kFloat).device(at::kCUDA);
  Parameter host("w", {300, 501}, at::kFloat, {}), host_a("a", {77}, at::kFloat, {});
  Parameter gpu("w", {300, 501}, cuda, {}), gpu_a("a", {77}, cuda, {});
  const at::Tensor d_w = at::randn({300, 501}), d_a = at::randn(77) * 100;
  const GradNorm want = norm_of({{&host, d_w}, {&host_a, d_a}});
  const GradNorm found = norm_of({{&gpu, d_w}, {&gpu_a, d_a}});
  EXPECT_NEAR(found.norm, want.norm, want.norm * 1e-13);
  d_a[76] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(norm_of({{&gpu, d_w}, {&gpu_a, d_a}}).non_finite, "a");
}

TEST(GradNorm, ClipsAsMegatronDoes) {
  EXPECT_EQ(clip_coefficient(0.5, 1.0), 1.0);
  EXPECT_EQ(clip_coefficient(4.0, 1.0), 1.0 / (4.0 + 1e-6));
  EXPECT_EQ(clip_coefficient(4.0, 0.0), 1.0);
}

}  // namespace
}  // namespace moetron
