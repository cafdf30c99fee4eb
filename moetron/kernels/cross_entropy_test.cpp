#include "moetron/kernels/cross_entropy.h"

#include <cmath>

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr int64_t kIgnored = -100;

// Without what stands at the labels, which outweighs all the rest.
at::Tensor beside_labels(const at::Tensor& x, const at::Tensor& labels) {
  return x.to(at::kDouble).scatter(1, labels.clamp_min(0).unsqueeze(1), 0);
}

// Against log_softmax in fp64.
void expect_formula(const at::Tensor& logits, const at::Tensor& labels, double scale) {
  const at::Tensor counts = labels.ne(kIgnored).unsqueeze(1);  // [tokens, 1]
  const at::Tensor at_label = labels.clamp_min(0).unsqueeze(1);
  const at::Tensor log_p = logits.to(at::kDouble).log_softmax(-1);
  const at::Tensor losses0 = log_p.gather(1, at_label).neg().mul(counts).squeeze(1);
  const at::Tensor ones = at::zeros_like(log_p).scatter_(1, at_label, 1);
  const at::Tensor d0 = log_p.exp().sub_(ones).mul_(counts).mul_(scale);
  poison_gpu_memory();
  ASSERT_TRUE(has_cross_entropy_kernel(logits));
  const at::Tensor losses = cross_entropy_in_place(logits, labels, kIgnored, scale);
  EXPECT_LE(relative_error(losses, losses0), 1e-5);
  EXPECT_LE(relative_error(logits, d0), 4e-3);
  EXPECT_LE(relative_error(beside_labels(logits, labels), beside_labels(d0, labels)), 4e-3);
}

at::Tensor random_labels(int64_t tokens, int64_t vocab) {
  const at::Tensor labels =
      at::randint(vocab, {tokens}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  if (tokens > 2) labels[1].fill_(kIgnored);
  labels[0].fill_(vocab - 1);
  return labels;
}

TEST(CrossEntropy, MatchesTheFormula) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(7);
  // Whole vectors and odd rows, of one block and of clusters.
  const std::vector<std::pair<int64_t, int64_t>> shapes{
      {1024, 32000}, {200, 129280}, {200, 151936}, {130, 50257}, {70, 102401}, {9, 1000},
      {5, 7},        {3, 1},        {2, 600000},   {2, 600001},  {300, 8}};
  for (const auto& [tokens, vocab] : shapes) {
    SCOPED_TRACE(::testing::Message() << tokens << " x " << vocab);
    expect_formula(random_bf16({tokens, vocab}, 3), random_labels(tokens, vocab), 0.37);
  }
}

TEST(CrossEntropy, TakesRowsThatBeginAnywhere) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(8);
  const at::Tensor logits = random_bf16({1 + 5 * 64}).narrow(0, 1, 5 * 64).view({5, 64});
  expect_formula(logits, random_labels(5, 64), 1.0 / 4096);
}

TEST(CrossEntropy, OfLargeLogitsDoesNotOverflow) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(9);
  const at::Tensor logits = random_bf16({40, 32000}).add_(3000);
  logits.select(1, 5).fill_(-std::numeric_limits<float>::infinity());
  const at::Tensor labels = random_labels(40, 32000);
  const at::Tensor wanted = logits.to(at::kDouble).log_softmax(-1);
  const at::Tensor losses = cross_entropy_in_place(logits, labels, kIgnored, 1);
  // A difference of numbers of about 3000.
  EXPECT_NEAR(losses[0].item<double>(), -wanted[0][31999].item<double>(), 3000 * kRounding);
  EXPECT_EQ(losses[1].item<double>(), 0);
  EXPECT_EQ(logits[1].abs().sum().item<double>(), 0);
  EXPECT_EQ(logits[2][5].item<double>(), 0);
  EXPECT_TRUE(logits.isfinite().all().item<bool>());
}

TEST(CrossEntropy, OfAnUnknownLabelIsNan) {
  SKIP_WITHOUT_GPU();
  const at::Tensor labels = at::tensor({3, 16, -1}, at::kLong).cuda();
  const at::Tensor losses = cross_entropy_in_place(random_bf16({3, 16}), labels, kIgnored, 1).cpu();
  EXPECT_TRUE(std::isfinite(losses[0].item<double>()));
  EXPECT_TRUE(std::isnan(losses[1].item<double>()));
  EXPECT_TRUE(std::isnan(losses[2].item<double>()));
}

TEST(CrossEntropy, RefusesTensorsOnTheHost) {
  const at::Tensor logits = at::zeros({2, 8}, at::kBFloat16);
  EXPECT_FALSE(has_cross_entropy_kernel(logits));
  EXPECT_THROW(cross_entropy_in_place(logits, at::zeros({2}, at::kLong), kIgnored, 1),
               InternalError);
}

}  // namespace
}  // namespace moetron
