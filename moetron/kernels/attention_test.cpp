#include "moetron/kernels/attention.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr double kScale = 0.08;
constexpr double kAttentionError =
    1e-2;  // of sums of products whose factors were rounded on the way

struct Inputs {
  at::Tensor q, k, v, d_mixed;
};

// Views of one buffer for q and k, as a fused projection leaves them.
Inputs random_inputs(int64_t sequences, int64_t tokens, int64_t heads, int64_t groups,
                     int64_t width, int64_t value_width) {
  const at::Tensor q_and_k = random_bf16({sequences, tokens, heads + groups, width});
  return {q_and_k.narrow(2, 0, heads), q_and_k.narrow(2, heads, groups),
          random_bf16({sequences, tokens, groups, value_width}),
          random_bf16({sequences, tokens, heads, value_width})};
}

// mixed, log_sums, d_q, d_k, d_v.
std::vector<at::Tensor> run(const Inputs& x, bool deterministic,
                            const std::optional<PackedDocuments>& documents = {}) {
  poison_gpu_memory();
  const AttentionResult out = attention_forward(x.q, x.k, x.v, kScale, deterministic, documents);
  const AttentionGrads grads =
      attention_backward(x.d_mixed, x.q, x.k, x.v, out, kScale, deterministic, documents);
  return {out.mixed, out.log_sums, grads.d_q, grads.d_k, grads.d_v};
}

// The same in fp64, by the definition.
std::vector<at::Tensor> expected_of(const Inputs& x) {
  const auto leaf = [](const at::Tensor& t) {
    return t.to(at::kDouble).clone().requires_grad_(true);
  };
  const at::AutoGradMode with_grad(true);
  const at::Tensor q = leaf(x.q), k = leaf(x.k), v = leaf(x.v);
  const int64_t tokens = q.size(1), repeats = q.size(2) / k.size(2);
  const auto heads_first = [](const at::Tensor& t, int64_t copies) {
    return t.repeat_interleave(copies, 2).transpose(1, 2);
  };
  const at::Tensor later = at::ones({tokens, tokens}, q.options().dtype(at::kBool)).triu(1);
  const at::Tensor scores = heads_first(q, 1)
                                .matmul(heads_first(k, repeats).transpose(-2, -1))
                                .mul(kScale)
                                .masked_fill(later, -std::numeric_limits<double>::infinity());
  const at::Tensor mixed = scores.softmax(-1).matmul(heads_first(v, repeats)).transpose(1, 2);
  mixed.backward(x.d_mixed.to(at::kDouble));
  return {mixed.detach(), scores.detach().logsumexp(-1), q.grad(), k.grad(), v.grad()};
}

void expect_near(const std::vector<at::Tensor>& actual, const std::vector<at::Tensor>& expected) {
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(actual[i].sizes(), expected[i].sizes());
    EXPECT_TRUE(actual[i].is_contiguous());
    EXPECT_LT(relative_error(actual[i], expected[i]), kAttentionError) << "tensor " << i;
  }
}

TEST(CudnnAttention, EqualsTheDefinition) {
  SKIP_WITHOUT_GPU();
  for (const Inputs& x :
       {random_inputs(2, 384, 8, 2, 128, 128), random_inputs(1, 256, 4, 4, 192, 128),
        random_inputs(3, 200, 6, 1, 64, 64), random_inputs(2, 77, 4, 2, 128, 64),
        random_inputs(1, 2, 2, 1, 128, 128), random_inputs(1, 1000, 4, 4, 192, 128)}) {
    SCOPED_TRACE(testing::Message() << "q " << x.q.sizes() << ", v " << x.v.sizes());
    ASSERT_TRUE(has_attention(x.q, x.v));
    const auto expected = expected_of(x);
    // The second use tries the plans, the third has the fastest.
    for (int use = 0; use < 3; ++use) expect_near(run(x, /*deterministic=*/false), expected);
    const auto fixed = run(x, /*deterministic=*/true), again = run(x, /*deterministic=*/true);
    expect_near(fixed, expected);
    for (size_t i = 0; i < fixed.size(); ++i) EXPECT_TRUE(at::equal(fixed[i], again[i])) << i;
  }
}

// Each document alone, put together as packed attention gives them.
std::vector<at::Tensor> expected_of(const Inputs& x, const std::vector<int64_t>& bounds) {
  std::vector<std::vector<at::Tensor>> parts(5);
  for (size_t i = 1; i < bounds.size(); ++i) {
    const auto own = [&](const at::Tensor& t) {
      return t.flatten(0, 1).narrow(0, bounds[i - 1], bounds[i] - bounds[i - 1]).unsqueeze(0);
    };
    const auto one = expected_of({own(x.q), own(x.k), own(x.v), own(x.d_mixed)});
    for (size_t j = 0; j < parts.size(); ++j) parts[j].push_back(one[j]);
  }
  std::vector<at::Tensor> whole;
  for (size_t j = 0; j < parts.size(); ++j) {
    const bool is_log_sums = j == 1;
    const at::Tensor all = at::cat(parts[j], is_log_sums ? 2 : 1);
    whole.push_back(is_log_sums ? all : all.unflatten(1, {x.q.size(0), x.q.size(1)}).squeeze(0));
  }
  return whole;
}

TEST(CudnnAttention, DocumentsDoNotSeeEachOther) {
  SKIP_WITHOUT_GPU();
  std::vector<int64_t> many = {0};  // more than the plan for 16 takes, each of another length
  while (many.back() < 900) many.push_back(many.back() + 1 + (many.back() * 7 + 13) % 60);
  many.push_back(1000);
  const std::vector<std::pair<Inputs, std::vector<int64_t>>> cases = {
      {random_inputs(2, 384, 8, 2, 128, 128), {0, 1, 130, 384, 500, 767, 768}},
      {random_inputs(1, 256, 4, 4, 192, 128), {0, 256}},
      {random_inputs(1, 1000, 4, 4, 192, 128), many},
      {random_inputs(3, 200, 6, 1, 64, 64), {0, 200, 399, 400, 600}},
      {random_inputs(1, 1000, 8, 2, 128, 128), many}};
  for (const auto& [x, bounds] : cases) {
    SCOPED_TRACE(testing::Message() << "q " << x.q.sizes() << ", v " << x.v.sizes());
    int64_t longest = 0;
    for (size_t i = 1; i < bounds.size(); ++i)
      longest = std::max(longest, bounds[i] - bounds[i - 1]);
    const PackedDocuments documents{at::tensor(bounds, at::kInt).to(at::kCUDA), longest};
    const auto expected = expected_of(x, bounds);
    for (bool deterministic : {false, true}) {
      const auto first = run(x, deterministic, documents);
      expect_near(first, expected);
      const auto again = run(x, deterministic, documents);
      if (!deterministic) continue;
      for (size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(at::equal(first[i], again[i])) << i;
    }
  }
}

TEST(CudnnAttention, TakesStridesThatItsKernelsDoNot) {
  SKIP_WITHOUT_GPU();
  Inputs x = random_inputs(2, 128, 4, 2, 64, 64);
  const auto expected = expected_of(x);
  x.q = at::constant_pad_nd(x.q, {1, 0}).narrow(3, 1, 64);             // rows off their alignment
  x.k = x.k.transpose(1, 3).contiguous().transpose(1, 3);              // rows that are no rows
  x.v = at::constant_pad_nd(x.v, {0, 4}).narrow(3, 0, 64);             // row strides of half pieces
  x.d_mixed = x.d_mixed.transpose(1, 2).contiguous().transpose(1, 2);  // which they take
  expect_near(run(x, /*deterministic=*/false), expected);
  const PackedDocuments documents{at::tensor({0, 128, 256}, at::kInt).to(at::kCUDA), 128};
  auto packed = run(x, /*deterministic=*/false, documents);
  packed[1] = packed[1].view({4, 2, 128}).transpose(0, 1).contiguous();
  expect_near(packed, expected);
}

// 64 heads of 8192 tokens write 8 GiB of pairs: in two parts.
TEST(CudnnAttention, DeterministicPartsEqualTheWhole) {
  SKIP_WITHOUT_GPU();
  const Inputs x = random_inputs(1, 8192, 64, 4, 128, 128);
  const auto parts = run(x, /*deterministic=*/true);
  expect_near(parts, run(x, /*deterministic=*/false));
  const auto again = run(x, /*deterministic=*/true);
  for (size_t i = 0; i < parts.size(); ++i) EXPECT_TRUE(at::equal(parts[i], again[i])) << i;
}

TEST(CudnnAttention, HasNoOtherWidths) {
  const auto has = [](int64_t width, int64_t value_width, int64_t tokens, const auto& options) {
    return has_attention(at::empty({1, tokens, 2, width}, options),
                         at::empty({1, tokens, 2, value_width}, options));
  };
  EXPECT_FALSE(has(128, 128, 16, at::TensorOptions(at::kBFloat16)));  // on the CPU
  SKIP_WITHOUT_GPU();
  const auto bf16 = at::TensorOptions(at::kCUDA).dtype(at::kBFloat16);
  EXPECT_TRUE(has(128, 128, 16, bf16));
  EXPECT_TRUE(has(192, 128, 16, bf16));
  EXPECT_FALSE(has(192, 192, 16, bf16));
  EXPECT_FALSE(has(256, 256, 16, bf16));
  EXPECT_FALSE(has(100, 100, 16, bf16));
  EXPECT_FALSE(has(128, 128, 1, bf16));
  EXPECT_FALSE(has(128, 128, 16, bf16.dtype(at::kFloat)));
}

}  // namespace
}  // namespace moetron
