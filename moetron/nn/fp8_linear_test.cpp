#include "moetron/nn/fp8_linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr int64_t kTokens = 150, kIn = 200, kOut = 136;
// Of numbers of order 1; each factor is 2.7 % off at most, E5M2 5.4 %.
constexpr double kE4m3Error = 0.05, kE5m2Error = 0.08;

struct Outcome {
  at::Tensor y, d_x, d_weight, d_bias;
};

struct Inputs {
  at::Tensor x = at::randn({3, kTokens / 3, kIn}), weight = at::randn({kOut, kIn}),
             bias = at::randn({kOut}), d_y = at::randn({3, kTokens / 3, kOut});
};

// Two micro-batches, the second of which adds to the gradients. Without products: plain ones.
Outcome run_linear(const Inputs& inputs, const std::optional<Fp8Products>& products,
                   bool remakes = false) {
  Parameter weight("weight", {kOut, kIn}, at::kFloat, {});
  Parameter bias("bias", {kOut}, at::kFloat, {});
  weight.value().copy_(inputs.weight);
  bias.value().copy_(inputs.bias);
  if (products) multiply_in_fp8(weight, *products);
  Outcome outcome;
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    SegmentRun run(true);
    const at::Tensor x = run.input(inputs.x);
    Remake remake;
    if (remakes) remake = [&] { return inputs.x; };
    outcome.y = run.output(linear(x, weight, run, &bias, {}, remake));
    outcome.d_x = run.backward({inputs.d_y}).front();
    run.weight_grads().run();
  }
  outcome.d_weight = weight.grad();
  outcome.d_bias = bias.grad();
  return outcome;
}

at::Tensor of_rows(const at::Tensor& x, at::ScalarType dtype = at::kFloat8_e4m3fn) {
  return dequantise(quantise_rows(x.reshape({-1, x.size(-1)}), dtype));
}

TEST(Fp8Linear, MultipliesTheQuantisedNumbers) {
  const Inputs inputs;
  for (const auto gradients : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const Outcome got = run_linear(inputs, Fp8Products{.gradients = gradients});
    const at::Tensor x = of_rows(inputs.x), d_y = of_rows(inputs.d_y, gradients);
    const at::Tensor weight = dequantise(quantise_blocks(inputs.weight, at::kFloat8_e4m3fn));
    EXPECT_LE(relative_error(got.y.flatten(0, 1), x.matmul(weight.t()) + inputs.bias), kRounding);
    EXPECT_LE(relative_error(got.d_x.flatten(0, 1), d_y.matmul(weight)), kRounding);
    EXPECT_LE(relative_error(got.d_bias, inputs.d_y.flatten(0, 1).sum(0) * 2), kRounding);
    // Of numbers of order 1 columns differ from rows by what falls off below the smallest alone.
    EXPECT_LE(relative_error(got.d_weight, d_y.t().matmul(x) * 2), 2e-3);
  }
}

TEST(Fp8Linear, IsNearTheProductInFullPrecision) {
  const Inputs inputs;
  const Outcome plain = run_linear(inputs, {});
  for (const auto gradients : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    const double bound = gradients == at::kFloat8_e4m3fn ? kE4m3Error : kE5m2Error;
    const Outcome got = run_linear(inputs, Fp8Products{.gradients = gradients});
    const double of_y = relative_error(got.y, plain.y), of_x = relative_error(got.d_x, plain.d_x),
                 of_weight = relative_error(got.d_weight, plain.d_weight);
    std::printf("gradients in %s: relative errors %.4f of y, %.4f of d_x, %.4f of d_weight\n",
                at::toString(gradients), of_y, of_x, of_weight);
    EXPECT_LT(of_y, kE4m3Error);
    EXPECT_LT(of_x, bound);
    EXPECT_LT(of_weight, bound);
    EXPECT_GT(of_y, 1e-3);  // it was in 8 bits
  }
}

TEST(Fp8Linear, LeavesWeightGradientsInFullPrecisionIfAsked) {
  const Inputs inputs;
  const Outcome plain = run_linear(inputs, {});
  const Outcome got = run_linear(inputs, Fp8Products{.weight_grad = false});
  EXPECT_TRUE(got.d_weight.equal(plain.d_weight));
  EXPECT_GT(relative_error(got.d_x, plain.d_x), 1e-3);
}

TEST(Fp8Linear, MakesItsInputAnewToTheSameBits) {
  const Inputs inputs;
  for (const bool weight_grad : {false, true}) {
    const Fp8Products products{.weight_grad = weight_grad};
    const Outcome kept = run_linear(inputs, products), remade = run_linear(inputs, products, true);
    EXPECT_TRUE(kept.d_weight.equal(remade.d_weight));
  }
}

TEST(Fp8Linear, QuantisesAWeightWhenItChanges) {
  Parameter weight("weight", {kOut, kIn}, at::kFloat, {});
  multiply_in_fp8(weight, {});
  const at::Tensor before = weight.quantised().blocks.values;
  EXPECT_TRUE(weight.quantised().blocks.values.is_same(before));
  weight.value().fill_(1);
  EXPECT_FALSE(weight.quantised().blocks.values.is_same(before));
  EXPECT_TRUE(dequantise(weight.quantised().turned).eq(1).all().item<bool>());
}

TEST(Fp8Linear, FrozenWeightsHaveNoGradient) {
  const Inputs inputs;
  Parameter weight("weight", {kOut, kIn}, at::kFloat, {});
  weight.value().copy_(inputs.weight);
  weight.freeze();
  multiply_in_fp8(weight, {});
  SegmentRun run(true);
  const at::Tensor x = run.input(inputs.x);
  run.output(linear(x, weight, run));
  EXPECT_TRUE(run.backward({inputs.d_y}).front().defined());
  EXPECT_TRUE(run.weight_grads().empty());
}

TEST(Fp8LinearOnGpu, IsThatOfTheHost) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  const at::Tensor x = random_bf16({272, 512}), value = random_bf16({384, 512}),
                   d_y = random_bf16({272, 384});
  const auto results = [&](c10::Device device) {
    Parameter weight("weight", {384, 512}, at::TensorOptions(device).dtype(at::kBFloat16), {});
    weight.value().copy_(value);
    multiply_in_fp8(weight, {});
    SegmentRun run(true);
    const at::Tensor input = run.input(x.to(device));
    const at::Tensor y = run.output(linear(input, weight, run));
    const at::Tensor d_x = run.backward({d_y.to(device)}).front();
    run.weight_grads().run();
    return std::vector{y, d_x, weight.grad()};
  };
  const auto there = results(at::kCUDA), here = results(at::kCPU);
  for (size_t i = 0; i < there.size(); ++i) EXPECT_LE(relative_error(there[i], here[i]), 4e-3) << i;
}

}  // namespace
}  // namespace moetron
