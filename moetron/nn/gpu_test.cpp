// The operations that have kernels on a GPU, forward and backward in bf16 there, against the same
// operations on the CPU in fp32.
#include <array>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/choice_hold.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/fused_attention.h"
#include "moetron/nn/head_operations.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/loss.h"

namespace moetron {
namespace {

constexpr double kBf16Error = 1e-2;  // of a sum of many products that were rounded on the way

struct AttentionCase {
  int64_t heads, kv_heads, width, value_width, tokens;
  bool deterministic;
};

struct AttentionTensors {
  at::Tensor q, k, v, d;
};

// Output, then the gradients of q, k, v.
std::vector<at::Tensor> attend(const AttentionTensors& x) {
  SegmentRun run(true);
  const at::Tensor q = run.input(x.q), k = run.input(x.k), v = run.input(x.v);
  const at::AutoGradMode with_grad(true);
  const at::Tensor mixed = run.output(causal_attention(q, k, v, 0.1, run));
  std::vector<at::Tensor> results = {mixed};
  for (at::Tensor& d : run.backward({x.d})) results.push_back(d);
  return results;
}

TEST(GpuAttention, EqualsTheCpus) {
  SKIP_WITHOUT_GPU();
  for (const AttentionCase& c :
       {AttentionCase{8, 2, 128, 128, 384, false}, AttentionCase{4, 4, 192, 128, 256, false},
        AttentionCase{8, 2, 128, 128, 200, true}, AttentionCase{4, 4, 192, 128, 256, true},
        AttentionCase{4, 1, 64, 64, 130, false}, AttentionCase{4, 2, 256, 256, 100, true}}) {
    at::globalContext().setDeterministicAlgorithms(c.deterministic, /*warn_only=*/false);
    AttentionTensors gpu{random_bf16({2, c.tokens, c.heads, c.width}),
                         random_bf16({2, c.tokens, c.kv_heads, c.width}),
                         random_bf16({2, c.tokens, c.kv_heads, c.value_width}),
                         random_bf16({2, c.tokens, c.heads, c.value_width})};
    const auto fp32 = [](const at::Tensor& x) { return x.cpu().to(at::kFloat); };
    const auto expected = attend({fp32(gpu.q), fp32(gpu.k), fp32(gpu.v), fp32(gpu.d)});
    ASSERT_TRUE(has_fused_attention(gpu.q, gpu.v));
    const auto actual = attend(gpu);
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(actual[i].sizes(), expected[i].sizes());
      EXPECT_LT(relative_error(actual[i], expected[i]), kBf16Error)
          << "tensor " << i << " of width " << c.width << ", deterministic " << c.deterministic;
    }
    if (c.deterministic) {
      const auto again = attend(gpu);
      for (size_t i = 0; i < actual.size(); ++i) EXPECT_TRUE(at::equal(again[i], actual[i])) << i;
    }
    at::globalContext().setDeterministicAlgorithms(false, false);
  }
}

// Full recomputation runs its first forward without gradients.
TEST(GpuAttention, HasTheSameBitsWithoutGradients) {
  SKIP_WITHOUT_GPU();
  const ChoiceHold hold;
  for (const auto& [width, value_width, tokens] :
       {std::array<int64_t, 3>{128, 128, 384}, {192, 128, 256}, {64, 64, 130}, {256, 256, 100}}) {
    const at::Tensor q = random_bf16({2, tokens, 4, width});
    const at::Tensor k = random_bf16({2, tokens, 2, width});
    const at::Tensor v = random_bf16({2, tokens, 2, value_width});
    std::vector<at::Tensor> mixed;
    for (const bool with_grad : {false, true}) {
      SegmentRun run(with_grad);
      const at::AutoGradMode mode(with_grad);
      const at::Tensor a = run.input(q), b = run.input(k), c = run.input(v);
      mixed.push_back(run.output(causal_attention(a, b, c, 0.1, run)));
    }
    EXPECT_TRUE(at::equal(mixed[0], mixed[1])) << width << ", " << value_width;
  }
}

TEST(GpuLinear, Fp32OutputsAndTheirGradientsAreNotRounded) {
  SKIP_WITHOUT_GPU();
  const at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  Parameter weight("w", {16, 512}, bf16, {});
  weight.value().copy_(random_bf16({16, 512}));
  const at::Tensor x = random_bf16({300, 512});
  const at::Tensor d = at::randn({300, 16}, bf16.dtype(at::kFloat));
  SegmentRun run(true);
  const at::AutoGradMode with_grad(true);
  const at::Tensor y = run.output(linear(run.input(x), weight, run, nullptr, at::kFloat));
  const at::Tensor x64 = x.cpu().to(at::kDouble), w64 = weight.value().cpu().to(at::kDouble);
  EXPECT_LT(relative_error(y, x64.matmul(w64.t())), 1e-5);
  const at::Tensor d_x = run.backward({d})[0];
  run.weight_grads().run();
  const at::Tensor d64 = d.cpu().to(at::kDouble);
  EXPECT_LT(relative_error(d_x, d64.matmul(w64)), 4e-3);  // itself rounded to bf16
  EXPECT_LT(relative_error(weight.grad(), d64.t().matmul(x64)), 2e-5);
}

TEST(GpuLoss, LinearCrossEntropyEqualsTheCpus) {
  SKIP_WITHOUT_GPU();
  const at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  const int64_t tokens = 70, hidden = 128, vocab = 1000;
  Parameter gpu("w", {vocab, hidden}, bf16, {}), cpu("w", {vocab, hidden}, at::kFloat, {});
  gpu.value().copy_(random_bf16({vocab, hidden}, 0.1));
  cpu.value().copy_(gpu.value());
  const at::Tensor x = random_bf16({tokens, hidden});
  at::Tensor labels = at::randint(vocab, {tokens}, at::kLong);
  labels.narrow(0, 10, 7).fill_(kIgnoredLabel);
  const double d_loss = 1.0 / 63;
  const at::AutoGradMode with_grad(true);
  SegmentRun gpu_run(true), cpu_run(true);
  const at::Tensor actual = gpu_run.output(
      linear_cross_entropy_sum(gpu_run.input(x), gpu, {labels.to(at::kCUDA), {}}, d_loss, gpu_run));
  const at::Tensor rows = cpu_run.input(x.cpu().to(at::kFloat));
  const VocabShard whole{nullptr, vocab};
  const at::Tensor expected =
      cpu_run.output(cross_entropy_sum(linear(rows, cpu, cpu_run), {labels, {}}, whole, cpu_run));
  EXPECT_LT(relative_error(actual, expected), 1e-3);
  const at::Tensor d = at::full({}, d_loss, at::kFloat);
  const at::Tensor d_actual = gpu_run.backward({d.to(at::kCUDA)})[0];
  const at::Tensor d_expected = cpu_run.backward({d})[0];
  cpu_run.weight_grads().run();
  EXPECT_LT(relative_error(d_actual, d_expected), kBf16Error);
  EXPECT_LT(relative_error(gpu.grad(), cpu.grad()), kBf16Error);
}

struct Geometry {
  bool latent;
  RopePairs pairs;
  bool qk_norm;
  bool recomputes = false;
};

std::unique_ptr<Attention> make_attention(const Geometry& g, const at::TensorOptions& options) {
  AttentionSettings s;
  s.hidden_size = 256;
  s.num_heads = 4;
  s.num_key_value_heads = g.latent ? 4 : 2;
  s.head_dim = g.latent ? 192 : 128;
  s.qk_norm = g.qk_norm;
  s.softmax_scale = 0.08;
  const size_t rotated = g.latent ? 64 : 128;
  for (size_t i = 0; i < rotated / 2; ++i) {
    s.inverse_frequencies.push_back(static_cast<float>(std::pow(1e4, -2.0 * i / rotated)));
  }
  s.rope_pairs = g.pairs;
  s.options = options;
  const MlaDims dims{.q_lora_rank = 128,
                     .kv_lora_rank = 64,
                     .qk_nope_head_dim = 128,
                     .qk_rope_head_dim = 64,
                     .v_head_dim = 128,
                     .fuse_down = true,
                     .recompute_norms = g.recomputes};
  return g.latent ? make_latent_attention("self_attn.", s, dims)
                  : make_grouped_query_attention("self_attn.", s);
}

// Output, input's gradient, then every parameter's.
std::vector<at::Tensor> run_attention(Attention& attention, const at::Tensor& x,
                                      const at::Tensor& positions, const at::Tensor& d,
                                      const OperatorChoice& operators = {}) {
  SegmentRun run(true, operators);
  const at::AutoGradMode with_grad(true);
  MicroBatch micro_batch = make_micro_batch(at::zeros_like(positions));
  micro_batch.positions = positions;
  const at::Tensor y = run.output(attention.forward(
      run.input(x), [x] { return x; }, micro_batch, nullptr, run));
  std::vector<at::Tensor> results = {y, run.backward({d})[0]};
  run.weight_grads().run();
  attention.visit([&](Parameter& p) { results.push_back(p.grad()); });
  return results;
}

TEST(GpuAttention, OfEveryGeometryEqualsTheCpus) {
  SKIP_WITHOUT_GPU();
  const at::TensorOptions bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  for (const Geometry& g :
       {Geometry{false, RopePairs::kHalves, true}, Geometry{false, RopePairs::kHalves, false},
        Geometry{false, RopePairs::kNeighbours, true},
        Geometry{true, RopePairs::kNeighbours, false},
        Geometry{true, RopePairs::kNeighbours, false, true}}) {
    const auto gpu = make_attention(g, bf16), cpu = make_attention(g, at::kFloat);
    std::vector<at::Tensor> values;
    gpu->visit([&](Parameter& p) {
      const double scale = p.value().dim() == 1 ? 0.2 : 0.06;
      p.value().copy_(random_bf16(p.value().sizes(), scale).add_(p.value().dim() == 1 ? 1 : 0));
      values.push_back(p.value());
    });
    size_t i = 0;
    cpu->visit([&](Parameter& p) { p.value().copy_(values[i++]); });
    const at::Tensor positions = at::arange(100, at::kLong).add(7).expand({2, 100}).contiguous();
    const at::Tensor x = random_bf16({200, 256}), d = random_bf16({200, 256});
    const auto expected =
        run_attention(*cpu, x.cpu().to(at::kFloat), positions, d.cpu().to(at::kFloat));
    for (const Operators operators : {Operators::kFastest, Operators::kPlain}) {
      gpu->visit([&](Parameter& p) { p.clear_grad(); });
      const auto actual =
          run_attention(*gpu, x, positions.to(at::kCUDA), d, {operators, operators});
      for (size_t j = 0; j < expected.size(); ++j) {
        EXPECT_LT(relative_error(actual[j], expected[j]), 2 * kBf16Error)
            << "tensor " << j << ", latent " << g.latent << ", norms " << g.qk_norm << ", plain "
            << (operators == Operators::kPlain);
      }
    }
  }
}

}  // namespace
}  // namespace moetron
