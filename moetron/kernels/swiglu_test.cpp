#include "moetron/kernels/swiglu.h"

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

at::Tensor leaf(const at::Tensor& value, at::ScalarType dtype) {
  return value.detach().to(dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
}

struct Bounds {
  double activation;  // relative, as both
  double d_weights;
};

// Against autograd through the formula in fp64.
void expect_formula(const at::Tensor& gate_up, const at::Tensor& weights, const at::Tensor& d_y,
                    const Bounds& bounds) {
  const at::Tensor g0 = leaf(gate_up, at::kDouble);
  const auto halves = g0.chunk(2, -1);
  at::Tensor y0 = at::silu(halves[0]) * halves[1];
  at::Tensor w0;
  if (weights.defined()) {
    w0 = leaf(weights, at::kDouble);
    y0 = y0 * w0.unsqueeze(-1);
  }
  y0.backward(d_y.to(at::kDouble));
  y0 = y0.detach();
  if (gate_up.is_cuda()) poison_gpu_memory();
  const at::Tensor y = swiglu_forward(gate_up, weights);
  EXPECT_EQ(y.sizes(), d_y.sizes());
  EXPECT_LE(relative_error(y, y0), bounds.activation);
  if (gate_up.is_cuda()) poison_gpu_memory();
  const SwigluGrads grads = swiglu_backward(gate_up, weights, d_y);
  EXPECT_LE(relative_error(grads.d_gate_up, g0.grad()), bounds.activation);
  EXPECT_TRUE(at::equal(grads.activation, y));
  EXPECT_EQ(grads.d_weights.defined(), weights.defined());
  if (weights.defined()) {
    EXPECT_EQ(grads.d_weights.scalar_type(), at::kFloat);
    EXPECT_LE(relative_error(grads.d_weights, w0.grad()), bounds.d_weights);
  }
  const SwigluGrads fewer = swiglu_backward(gate_up, weights, d_y, /*with_activation=*/false);
  EXPECT_FALSE(fewer.activation.defined());
  EXPECT_TRUE(at::equal(fewer.d_gate_up, grads.d_gate_up));
}

TEST(Swiglu, OfOperatorsMatchesTheFormula) {
  at::manual_seed(3);
  for (const bool weighted : {false, true}) {
    expect_formula(at::randn({6, 10}), weighted ? at::rand({6}) : at::Tensor(), at::randn({6, 5}),
                   {1e-6, 1e-6});
  }
}

TEST(Swiglu, KernelsMatchTheFormula) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(4);
  const std::vector<std::pair<int64_t, int64_t>> shapes{
      {4096, 1536}, {1025, 2048}, {1, 8}, {3, 24}, {5, 1032}, {2, 264}, {7, 18432}};
  for (const auto& [rows, width] : shapes) {
    SCOPED_TRACE(::testing::Message() << rows << " x " << width);
    const at::Tensor gate_up = random_bf16({rows, 2 * width}, 2), d_y = random_bf16({rows, width});
    expect_formula(gate_up, at::rand({rows}, at::kCUDA), d_y, {4e-3, 1e-5});
    expect_formula(gate_up, {}, d_y, {4e-3, 1e-5});
  }
}

// What no kernel takes: a width that is no multiple of 8, and rows that lie elsewhere. Operators
// round to bf16 after each step.
TEST(Swiglu, OfOddWidthsOnAGpuGoesThroughOperators) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(5);
  expect_formula(random_bf16({9, 20}), at::rand({9}, at::kCUDA), random_bf16({9, 10}),
                 {1.5e-2, 1.5e-2});
  expect_formula(random_bf16({9, 33}).narrow(1, 1, 32), at::rand({9}, at::kCUDA),
                 random_bf16({9, 16}), {1.5e-2, 1.5e-2});
}

TEST(Swiglu, KernelsTakeStridedGradientsLargeGatesAndNoRows) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(6);
  const at::Tensor gate_up = random_bf16({33, 64}, 60), weights = at::rand({33}, at::kCUDA);
  expect_formula(gate_up, weights, random_bf16({33, 35}).narrow(1, 3, 32), {4e-3, 1e-5});
  const SwigluGrads none =
      swiglu_backward(gate_up.narrow(0, 0, 0), weights.narrow(0, 0, 0), random_bf16({0, 32}));
  EXPECT_EQ(none.d_gate_up.sizes(), at::IntArrayRef({0, 64}));
  EXPECT_EQ(none.activation.sizes(), at::IntArrayRef({0, 32}));
}

void expect_fp8(const at::Tensor& gate_up, const at::Tensor& weights, const at::Tensor& d_y) {
  constexpr double kOfEightBits = 0.05;  // a 16th at most, and few numbers
  const at::Tensor y = swiglu_forward(gate_up, weights);
  const SwigluGrads grads = swiglu_backward(gate_up, weights, d_y);
  const Fp8Rows got = swiglu_forward_fp8(gate_up, weights, at::kFloat8_e4m3fn);
  EXPECT_EQ(got.values.sizes(), y.sizes());
  EXPECT_LE(relative_error(dequantise(got), y), kOfEightBits);
  const Fp8SwigluGrads quantised = swiglu_backward_fp8(gate_up, weights, d_y, {});
  EXPECT_LE(relative_error(dequantise(quantised.d_gate_up), grads.d_gate_up), kOfEightBits);
  EXPECT_TRUE(dequantise(quantised.activation).equal(dequantise(got)));
  if (weights.defined()) {
    EXPECT_TRUE(quantised.d_weights.equal(grads.d_weights));
  }
}

TEST(Swiglu, InEightBitsIsItsRoundedResult) {
  expect_fp8(at::randn({6, 20}), at::rand({6}), at::randn({6, 10}));
  expect_fp8(at::randn({6, 512}), {}, at::randn({6, 256}));
  SKIP_WITHOUT_GPU();
  for (const auto& [rows, width] :
       {std::pair<int64_t, int64_t>{301, 1536}, {1, 128}, {9, 384}, {7, 80}}) {
    const at::Tensor weights = at::rand({rows}, at::TensorOptions(at::kCUDA));
    expect_fp8(random_bf16({rows, 2 * width}), weights, random_bf16({rows, width}));
    expect_fp8(random_bf16({rows, 2 * width}), {}, random_bf16({rows, width}));
  }
}

}  // namespace
}  // namespace moetron
