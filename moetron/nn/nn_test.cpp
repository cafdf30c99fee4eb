// Every operation with a hand-written backward against autograd through plain ATen operators.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/embedding.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/loss.h"
#include "moetron/nn/mlp.h"
#include "moetron/nn/norm.h"
#include "moetron/nn/rope.h"

namespace moetron {
namespace {

at::Tensor leaf(const at::Tensor& value) {
  return value.detach().clone().requires_grad_();
}

void expect_close(const at::Tensor& found, const at::Tensor& wanted) {
  ASSERT_TRUE(found.defined());
  ASSERT_EQ(found.sizes(), wanted.sizes());
  EXPECT_LE(relative_error(found, wanted), 2 * kRounding);
}

class NnTest : public ::testing::Test {
 protected:
  void SetUp() override { at::manual_seed(1); }
};

TEST_F(NnTest, Linear) {
  Parameter weight("w", {5, 7}, at::kFloat, {});
  Parameter bias("b", {5}, at::kFloat, {});
  weight.value().normal_();
  bias.value().normal_();
  const at::Tensor x = at::randn({2, 3, 7}), d_y = at::randn({2, 3, 5});
  const at::Tensor x0 = leaf(x), w0 = leaf(weight.value()), b0 = leaf(bias.value());
  const at::Tensor y0 = at::linear(x0, w0, b0);
  y0.backward(d_y);

  for (int micro_batch = 1; micro_batch <= 2; ++micro_batch) {
    SegmentRun run(true);
    expect_close(run.output(linear(run.input(x), weight, run, &bias)), y0.detach());
    expect_close(run.backward({d_y})[0], x0.grad());
    run.weight_grads().run();
    expect_close(weight.grad(), w0.grad() * micro_batch);  // accumulates
    expect_close(bias.grad(), b0.grad() * micro_batch);
  }
}

TEST_F(NnTest, RmsNorm) {
  Parameter weight("w", {16}, at::kFloat, {});
  weight.value().normal_();
  const at::Tensor x = at::randn({4, 3, 16}), d_y = at::randn({4, 3, 16});
  const at::Tensor x0 = leaf(x), w0 = leaf(weight.value());
  const at::Tensor y0 = x0 * (x0.square().mean(-1, true) + 1e-5).rsqrt() * w0;
  y0.backward(d_y);
  SegmentRun run(true);
  expect_close(run.output(rms_norm(run.input(x), weight, 1e-5, run)), y0.detach());
  expect_close(run.backward({d_y})[0], x0.grad());
  run.weight_grads().run();
  expect_close(weight.grad(), w0.grad());
}

TEST_F(NnTest, EmbeddingAddsRepeatedTokens) {
  Parameter table("t", {6, 4}, at::kFloat, {});
  table.value().normal_();
  const at::Tensor tokens = at::tensor(std::vector<int64_t>{1, 5, 1, 0}, at::kLong);
  const at::Tensor d_y = at::randn({4, 4});
  const at::Tensor t0 = leaf(table.value());
  at::embedding(t0, tokens).backward(d_y);
  SegmentRun run(true);
  expect_close(run.output(embedding(tokens, table, {.vocab_size = 6}, run)),
               at::embedding(table.value(), tokens));
  run.backward({d_y});
  run.weight_grads().run();
  expect_close(table.grad(), t0.grad());
}

TEST_F(NnTest, RopeKeepsLengthsAndBothPairingsAgreeUpToOrder) {
  const at::Tensor positions = at::arange(5, at::kLong).repeat({2, 1});
  const RopeAngles angles = rope_angles(positions, at::tensor({1.0f, 0.1f, 0.01f}), 1.0);
  const at::Tensor x = at::randn({2, 5, 3, 6}), d_y = at::randn({2, 5, 3, 6});
  for (const RopePairs pairs : {RopePairs::kHalves, RopePairs::kNeighbours}) {
    SegmentRun run(true);
    const at::Tensor y = run.output(apply_rope(run.input(x), angles, pairs, run));
    expect_close(y.norm(2, {-1}), x.norm(2, {-1}));
    EXPECT_TRUE(at::equal(y.select(1, 0), x.select(1, 0)));  // position 0 does not turn
    // A rotation's adjoint is its inverse.
    const at::Tensor back = run.backward({y})[0];
    expect_close(back, x);
  }
  const at::Tensor permuted = x.unflatten(-1, {3, 2}).transpose(-1, -2).flatten(-2);
  SegmentRun run(false);
  const at::Tensor halves = apply_rope(permuted, angles, RopePairs::kHalves, run);
  const at::Tensor neighbours = apply_rope(x, angles, RopePairs::kNeighbours, run);
  expect_close(neighbours.unflatten(-1, {3, 2}).transpose(-1, -2).flatten(-2), halves);
}

TEST_F(NnTest, Swiglu) {
  const at::Tensor gate_up = at::randn({6, 10}), d_y = at::randn({6, 5});
  SegmentRun run(true);
  const at::Tensor g0 = leaf(gate_up);
  const at::Tensor y0 = at::silu(g0.narrow(1, 0, 5)) * g0.narrow(1, 5, 5);
  y0.backward(d_y);
  expect_close(run.output(swiglu(run.input(gate_up), run)), y0.detach());
  expect_close(run.backward({d_y})[0], g0.grad());
}

TEST_F(NnTest, CausalAttentionMatchesTheFormulaForGroupsAndNarrowValues) {
  const int64_t batch = 2, seq = 6, heads = 4, groups = 2, dim = 8, value_dim = 5;
  const at::Tensor q = at::randn({batch, seq, heads, dim}),
                   k = at::randn({batch, seq, groups, dim});
  const at::Tensor v = at::randn({batch, seq, groups, value_dim});
  const at::Tensor all_k = k.repeat_interleave(2, 2), all_v = v.repeat_interleave(2, 2);
  const at::Tensor scores = at::einsum("btnd,bsnd->bnts", {q, all_k}) * 0.3;
  const at::Tensor hidden = at::ones({seq, seq}, at::kBool).triu(1);
  const at::Tensor p = scores.masked_fill(hidden, -INFINITY).softmax(-1);
  const at::Tensor wanted = at::einsum("bnts,bsnd->btnd", {p, all_v});
  for (const Operators operators : {Operators::kFastest, Operators::kPlain}) {
    SegmentRun run(false, {.attention = operators});
    expect_close(causal_attention(q, k, v, 0.3, run), wanted);
    // The last queries over all keys, as behind a cache: the same numbers.
    for (int64_t t = 0; t < seq; ++t) {
      for (int64_t end = t + 1; end <= seq; ++end) {
        const at::Tensor mixed =
            causal_attention(q.slice(1, t, end), k.slice(1, 0, end), v.slice(1, 0, end), 0.3, run);
        expect_close(mixed, wanted.slice(1, t, end));
      }
    }
  }
}

TEST(AttentionCache, KeepsSequencesApartAndCutsThem) {
  AttentionCache cache;
  std::map<int64_t, at::Tensor> wanted;  // keys; values are twice as large
  for (const auto& [sequence, count] :
       std::vector<std::pair<int64_t, int64_t>>{{7, 3}, {0, 70}, {7, 1}, {7, 200}, {0, 1}}) {
    const at::Tensor keys = at::randn({count, 2, 4});
    at::Tensor& all = wanted[sequence];
    all = all.defined() ? at::cat({all, keys}) : keys;
    const auto [got, values] = cache.append(sequence, keys, keys * 2);
    EXPECT_TRUE(at::equal(got, all) && at::equal(values, all * 2)) << sequence << ", " << count;
  }
  cache.truncate(7, 5);
  const at::Tensor next = at::randn({2, 2, 4});
  EXPECT_TRUE(
      at::equal(cache.append(7, next, next).keys, at::cat({wanted[7].narrow(0, 0, 5), next})));
  cache.truncate(0, 0);
  EXPECT_TRUE(at::equal(cache.append(0, next, next).keys, next));
  EXPECT_THROW(cache.truncate(0, 3), InternalError);
}

TEST_F(NnTest, GradientsOfCausalAttentionAreTheFormulas) {
  const OperatorChoice plain{.attention = Operators::kPlain};
  for (const auto& [groups, operators] :
       {std::pair(4, OperatorChoice()), {2, {}}, {1, {}}, {4, plain}, {2, plain}}) {
    const int64_t batch = 2, seq = 6, heads = 4, dim = 8;
    const int64_t value_dim = groups == 2 ? 8 : 5;
    const at::Tensor q = at::randn({batch, seq, heads, dim}),
                     k = at::randn({batch, seq, groups, dim}),
                     v = at::randn({batch, seq, groups, value_dim}),
                     d_mixed = at::randn({batch, seq, heads, value_dim});
    const at::Tensor q0 = leaf(q), k0 = leaf(k), v0 = leaf(v);
    const at::Tensor all_k = k0.repeat_interleave(heads / groups, 2),
                     all_v = v0.repeat_interleave(heads / groups, 2);
    const at::Tensor scores = at::einsum("btnd,bsnd->bnts", {q0, all_k}) * 0.3;
    const at::Tensor hidden = at::ones({seq, seq}, at::kBool).triu(1);
    const at::Tensor p = scores.masked_fill(hidden, -INFINITY).softmax(-1);
    const at::Tensor wanted = at::einsum("bnts,bsnd->btnd", {p, all_v});
    wanted.backward(d_mixed);
    SegmentRun run(true, operators);
    const at::AutoGradMode with_grad(true);
    const at::Tensor q1 = run.input(q), k1 = run.input(k), v1 = run.input(v);
    const at::Tensor mixed = run.output(causal_attention(q1, k1, v1, 0.3, run));
    expect_close(mixed, wanted.detach());
    const auto d = run.backward({d_mixed});
    expect_close(d[0], q0.grad());
    expect_close(d[1], k0.grad());
    expect_close(d[2], v0.grad());
  }
}

// Documents within and across sequences, against attention with the whole mask.
TEST_F(NnTest, DocumentsAttendToThemselvesAlone) {
  const std::vector<int64_t> bounds = {0, 3, 4, 7, 12, 14};  // of two sequences of seven
  const at::Tensor document = at::zeros({14}, at::kLong);
  for (const int64_t bound : bounds) document.slice(0, bound).add_(1);
  const at::Tensor q = at::randn({2, 7, 4, 8}), k = at::randn({2, 7, 2, 8});
  const at::Tensor v = at::randn({2, 7, 2, 6}), d = at::randn({2, 7, 4, 6});
  std::vector<std::vector<at::Tensor>> results;
  for (const bool is_wanted : {true, false}) {
    SegmentRun run(true);
    const at::AutoGradMode with_grad(true);
    const at::Tensor q1 = run.input(q), k1 = run.input(k), v1 = run.input(v);
    at::Tensor mixed;
    if (is_wanted) {
      const at::Tensor of_row = document.view({2, 1, 7});
      const at::Tensor mask = of_row.unsqueeze(-1).eq(of_row.unsqueeze(-2)).tril();  // [2, 1, 7, 7]
      const auto heads = [](const at::Tensor& x, int64_t repeats) {
        return x.transpose(1, 2).repeat_interleave(repeats, 1);
      };
      const at::Tensor scores = heads(q1, 1).matmul(heads(k1, 2).transpose(2, 3)) * 0.3;
      mixed = scores.masked_fill(mask.logical_not(), -INFINITY).softmax(-1).matmul(heads(v1, 2));
      mixed = mixed.transpose(1, 2);
    } else {
      mixed = document_attention(q1, k1, v1, {bounds, {}}, 0.3, run);
    }
    results.push_back({run.output(mixed)});
    for (at::Tensor& gradient : run.backward({d})) results.back().push_back(gradient);
  }
  for (size_t i = 0; i < results[0].size(); ++i) expect_close(results[1][i], results[0][i]);
}

TEST_F(NnTest, CrossEntropyWeighsItsLabels) {
  const at::Tensor logits = at::randn({6, 9});
  const at::Tensor labels = at::tensor(std::vector<int64_t>{3, kIgnoredLabel, 0, 8, 1, 3});
  const at::Tensor weights = at::tensor({1.0, 5.0, 0.25, 2.0, 0.0, 1.5}, at::kFloat);
  const VocabShard all{nullptr, 9};
  const at::AutoGradMode with_grad(true);
  at::Tensor x = logits.detach().clone().requires_grad_();
  const at::Tensor each = at::cross_entropy_loss(x, labels, {}, at::Reduction::None);
  const at::Tensor wanted = (each * weights).sum();
  wanted.backward();
  SegmentRun run(true);
  expect_close(run.output(cross_entropy_sum(run.input(logits), {labels, weights}, all, run)),
               wanted.detach());
  expect_close(run.backward({at::ones({})})[0], x.grad());
}

TEST_F(NnTest, CrossEntropySkipsIgnoredLabels) {
  const at::Tensor logits = at::randn({4, 9});
  const at::Tensor labels = at::tensor(std::vector<int64_t>{3, kIgnoredLabel, 0, 8}, at::kLong);
  const at::Tensor l0 = leaf(logits);
  const at::Tensor wanted =
      at::cross_entropy_loss(l0, labels, {}, at::Reduction::Sum, kIgnoredLabel);
  (wanted * 0.25).backward();
  SegmentRun run(true);
  const VocabShard all{.vocab_size = 9};
  expect_close(run.output(cross_entropy_sum(run.input(logits), {labels, {}}, all, run)),
               wanted.detach());
  expect_close(run.backward({at::full({}, 0.25)})[0], l0.grad());
}

// A vocabulary of 9 on 4 ranks: 3 rows each, the last rank holds padding alone.
TEST_F(NnTest, EmbeddingAndLossOfADividedVocabularyEqualTheWhole) {
  const int64_t vocab = 9, hidden = 4;
  const at::Tensor table = at::randn({vocab, hidden}), logits = at::randn({5, vocab});
  const at::Tensor tokens = at::tensor(std::vector<int64_t>{1, 8, 1, 0, 4}, at::kLong);
  const at::Tensor labels = at::tensor(std::vector<int64_t>{3, kIgnoredLabel, 0, 8, 5}, at::kLong);
  const at::Tensor l0 = leaf(logits);
  const at::Tensor loss = at::cross_entropy_loss(l0, labels, {}, at::Reduction::Sum, kIgnoredLabel);
  loss.backward();
  run_ranks(4, [&](Communicator& world) {
    const VocabShard shard{&world, vocab};
    const int64_t first = std::min(shard.first(), vocab);
    const int64_t count = shard.rows() - shard.num_padding();
    Parameter part = vocab_parameter("t", shard, hidden, at::kFloat);
    part.value().narrow(0, 0, count).copy_(table.narrow(0, first, count));
    SegmentRun run(true);
    const at::Tensor y = run.output(embedding(tokens, part, shard, run));
    world.all_reduce(y).wait();
    expect_close(y, at::embedding(table, tokens));
    run.backward({at::ones({5, hidden})});
    run.weight_grads().run();
    const at::Tensor counts = at::bincount(tokens, {}, vocab).to(at::kFloat).unsqueeze(1);
    expect_close(part.grad().narrow(0, 0, count), counts.narrow(0, first, count).expand({-1, 4}));

    SegmentRun head(true);
    at::Tensor mine = at::full({5, shard.rows()}, NAN);  // padding must not matter
    mine.narrow(1, 0, count).copy_(logits.narrow(1, first, count));
    expect_close(head.output(cross_entropy_sum(head.input(mine), {labels, {}}, shard, head)),
                 loss.detach());
    const at::Tensor d = head.backward({at::ones({})})[0];
    expect_close(d.narrow(1, 0, count), l0.grad().narrow(1, first, count));
  });
}

}  // namespace
}  // namespace moetron
