#include "moetron/kernels/grad_norm.h"

#include <cmath>

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

// Slices of many sizes, of which those behind an odd one do not begin at a multiple of 16 bytes.
std::vector<at::Tensor> make_slices() {
  const std::vector<int64_t> counts{4096, 1, 3, 0, 65536, 65537, 131072 + 5, 4, 4096 * 1536, 1023};
  int64_t total = 0;
  for (const int64_t count : counts) total += count;
  const at::Tensor flat = at::randn(total, at::kCUDA);
  std::vector<at::Tensor> slices;
  for (const int64_t count : counts) {
    slices.push_back(flat.narrow(0, flat.numel() - total, count));
    total -= count;
  }
  return slices;
}

TEST(SumsOfSquares, AreThoseOfFp64) {
  SKIP_WITHOUT_GPU();
  at::manual_seed(2);
  const std::vector<at::Tensor> slices = make_slices();
  poison_gpu_memory();
  SumsOfSquares sums(slices);
  const at::Tensor first = sums.compute().clone();
  for (size_t i = 0; i < slices.size(); ++i) {
    const double want = slices[i].to(at::kDouble).square().sum().item<double>();
    EXPECT_NEAR(first[i].item<double>(), want, want * 1e-13) << slices[i].numel();
  }
  EXPECT_TRUE(at::equal(sums.compute(), first)) << "the same on every run";
  slices[1].fill_(3);  // what is there then
  EXPECT_EQ(sums.compute()[1].item<double>(), 9);
}

TEST(SumsOfSquares, NeitherOverflowNorHideANan) {
  SKIP_WITHOUT_GPU();
  std::vector<at::Tensor> slices;
  for (int i = 0; i < 3; ++i) slices.push_back(at::full(70001, 3e38f, at::kCUDA));
  slices[1][70000].fill_(std::numeric_limits<float>::quiet_NaN());
  slices[2][5].fill_(-std::numeric_limits<float>::infinity());
  const at::Tensor sums = SumsOfSquares(slices).compute().cpu();
  const double square = static_cast<double>(3e38f) * static_cast<double>(3e38f);
  EXPECT_NEAR(sums[0].item<double>(), 70001 * square, 1e-9 * 70001 * square);
  EXPECT_TRUE(std::isnan(sums[1].item<double>()));
  EXPECT_TRUE(std::isinf(sums[2].item<double>()));
}

TEST(SumsOfSquares, RefuseTensorsOnTheHost) {
  EXPECT_THROW(SumsOfSquares({at::zeros(8)}), InternalError);
}

}  // namespace
}  // namespace moetron
