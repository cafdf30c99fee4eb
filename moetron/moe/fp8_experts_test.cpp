#include "moetron/moe/fp8_experts.h"

#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/segment.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/moe/experts.h"

namespace moetron {
namespace {

constexpr double kFp8Error = 0.08;  // three factors, 2.7 % off each at most

struct Case {
  int64_t hidden = 144, width = 128;
  std::vector<int64_t> counts = {150, 0, 1, 200};
  int64_t behind = 3;  // rows behind the last expert's, of which nothing may be read
  at::TensorOptions options = at::kFloat;
};

struct Inputs {
  at::Tensor rows, probabilities, d_y, gate_up, down;

  explicit Inputs(const Case& c) {
    const int64_t count = std::accumulate(c.counts.begin(), c.counts.end(), c.behind);
    const auto experts = static_cast<int64_t>(c.counts.size());
    rows = at::randn({count, c.hidden});
    probabilities = at::rand({count}) + 0.5;
    d_y = at::randn({count, c.hidden});
    gate_up = at::randn({experts, 2 * c.width, c.hidden}) / 12;
    down = at::randn({experts, c.hidden, c.width});
    rows.narrow(0, count - c.behind, c.behind).fill_(NAN);
    d_y.narrow(0, count - c.behind, c.behind).fill_(NAN);
  }
};

// y, d_rows, d_probabilities without the rows behind; the weights' gradients of two micro-batches.
std::vector<at::Tensor> run_experts(const Case& c, const Inputs& inputs,
                                    const std::optional<Fp8Products>& products,
                                    bool recomputes = false) {
  Experts experts("experts.", {.num_experts = static_cast<int64_t>(c.counts.size())}, c.hidden,
                  c.width, {.options = c.options, .grouped_gemm = true, .recompute = recomputes});
  std::vector<Parameter*> weights;
  experts.visit([&](Parameter& parameter) {
    if (products) parameter.multiply_in_fp8(*products);
    weights.push_back(&parameter);
  });
  weights[0]->value().copy_(inputs.gate_up);
  weights[1]->value().copy_(inputs.down);
  std::vector<int32_t> ends(c.counts.size());
  std::partial_sum(c.counts.begin(), c.counts.end(), ends.begin());
  const c10::Device device = c.options.device();
  const ExpertRows rows_per_expert{c.counts, at::tensor(ends, at::kInt).to(device)};
  const int64_t used = ends.back();
  std::vector<at::Tensor> results;
  for (int micro_batch = 0; micro_batch < 2; ++micro_batch) {
    SegmentRun run(true);
    const at::Tensor rows = run.input(inputs.rows.to(c.options)),
                     p = run.input(inputs.probabilities.to(device));
    const at::Tensor y =
        run.output(experts.forward({.data = rows, .layout = rows_per_expert}, p, run));
    const auto grads = run.backward({inputs.d_y.to(c.options)});
    run.weight_grads().run();
    results = {y.narrow(0, 0, used), grads[0].narrow(0, 0, used), grads[1].narrow(0, 0, used)};
  }
  for (Parameter* weight : weights) results.push_back(weight->grad());
  return results;
}

void expect_near(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& wanted,
                 double bound) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double error = relative_error(got[i], wanted[i]);
    std::printf("%s: relative error %.5f\n",
                std::array{"y", "d_rows", "d_probabilities", "d_gate_up", "d_down"}[i], error);
    EXPECT_LE(error, bound) << i;
  }
}

TEST(Fp8Experts, AreNearThoseInFullPrecision) {
  const Case c;
  const Inputs inputs(c);
  const auto plain = run_experts(c, inputs, {});
  for (const bool weight_grad : {true, false}) {
    const auto got = run_experts(c, inputs, Fp8Products{.weight_grad = weight_grad});
    expect_near(got, plain, kFp8Error);
    EXPECT_GT(relative_error(got[0], plain[0]), 1e-3);  // it was in 8 bits
  }
}

TEST(Fp8Experts, ComputeTheFirstProductAgainToTheSameBits) {
  const Case c;
  const Inputs inputs(c);
  for (const bool weight_grad : {true, false}) {
    const Fp8Products products{.weight_grad = weight_grad};
    const auto kept = run_experts(c, inputs, products),
               again = run_experts(c, inputs, products, true);
    for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(kept[i].equal(again[i])) << i;
  }
}

TEST(Fp8ExpertsOnGpu, AreThoseOfTheHost) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  for (const int64_t width : {128, 384, 80}) {
    const Case host{.hidden = 256, .width = width, .options = at::kBFloat16};
    Case gpu = host;
    gpu.options = gpu.options.device(at::kCUDA);
    const Inputs inputs(host);
    for (const bool weight_grad : {true, false}) {
      const Fp8Products products{.weight_grad = weight_grad};
      // bf16 numbers in between may round to another 8 bits.
      expect_near(run_experts(gpu, inputs, products), run_experts(host, inputs, products), 0.03);
    }
  }
}

}  // namespace
}  // namespace moetron
