#include "moetron/kernels/fp8.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kSmallestScale = std::numeric_limits<float>::min();

// Half a unit in the last of 3 or 2 bits behind the point, beside the largest of a tile a little
// more where its scale is rounded up.
constexpr double kE4m3Error = 0x1p-4, kE5m2Error = 0x1p-3;

void expect_within(const at::Tensor& got, const at::Tensor& x, double relative,
                   const at::Tensor& scales) {
  // Numbers far below the largest of their tile are subnormal: half of the smallest of 8 bits.
  const at::Tensor bound = x.abs().mul(relative).add(scales.max().mul(0x1p-10));
  EXPECT_TRUE((got - x).abs().le(bound).all().item<bool>());
}

TEST(Fp8, RowsKeepTheirNumbersToTheBitsThereAre) {
  for (const int64_t size : {1, 127, 128, 129, 576}) {
    const at::Tensor x = at::randn({37, size});
    for (const bool power : {false, true}) {
      const Fp8Rows rows = quantise_rows(x, {.power_of_two = power});
      ASSERT_EQ(rows.values.sizes(), x.sizes());
      ASSERT_EQ(rows.scales.sizes(), at::IntArrayRef({(size + 127) / 128, 37}));
      EXPECT_EQ(rows.scales.stride(0) % 4, 0);
      expect_within(dequantise(rows), x, kE4m3Error, rows.scales);
    }
    const Fp8Rows rough = quantise_rows(x, {.dtype = at::kFloat8_e5m2});
    expect_within(dequantise(rough), x, kE5m2Error, rough.scales);
  }
  const at::Tensor x = at::randn({256, 4096});
  const double error = relative_error(dequantise(quantise_rows(x, {})), x);
  std::printf("E4M3 of normal numbers: relative error %.4f\n", error);
  EXPECT_LT(error, 0.03);  // a uniform error of at most 1/16 has 1/16 / sqrt(3) at its worst
}

TEST(Fp8, ATileTakesItsLargestToTheLargestOfEightBits) {
  const at::Tensor x = at::zeros({2, 300});
  x[0][5] = -7.0f;
  x[0][299] = 3.0f;
  const Fp8Rows rows = quantise_rows(x, {});
  EXPECT_EQ(rows.values.to(at::kFloat)[0][5].item<float>(), -448);
  EXPECT_EQ(rows.values.to(at::kFloat)[0][299].item<float>(), 448);
  EXPECT_EQ(rows.scales[0][0].item<float>(), 7.0f / 448);
  EXPECT_EQ(rows.scales[2][0].item<float>(), 3.0f / 448);
  EXPECT_EQ(rows.scales[1][0].item<float>(), kSmallestScale);  // zeros alone
  EXPECT_TRUE(dequantise(rows).eq(0).sum().item<int64_t>() == 598);
}

TEST(Fp8, ScalesMayBePowersOfTwo) {
  const at::Tensor x = at::randn({64, 256}) * at::logspace(-30, 30, 64).unsqueeze(1);
  const at::Tensor exact = quantise_rows(x, {}).scales;
  const at::Tensor powers = quantise_rows(x, {.power_of_two = true}).scales;
  EXPECT_TRUE(std::get<0>(at::frexp(powers)).eq(0.5).all().item<bool>());
  EXPECT_TRUE(powers.ge(exact).all().item<bool>());
  EXPECT_TRUE(powers.lt(exact * 2).all().item<bool>());
  const at::Tensor is_power = at::full({1, 1}, 448 * 0.25f);  // stays what it is
  EXPECT_EQ(quantise_rows(is_power, {.power_of_two = true}).scales.item<float>(), 0.25f);
}

TEST(Fp8, WhatIsNotFiniteMakesItsTileNaN) {
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    const at::Tensor x = at::ones({3, 256});
    x[1][130] = bad;
    for (const bool power : {false, true}) {
      const Fp8Rows rows = quantise_rows(x, {.power_of_two = power});
      EXPECT_EQ(rows.scales.isnan().sum().item<int64_t>(), 1);
      EXPECT_TRUE(rows.scales[1][1].isnan().item<bool>());
      const Fp8Blocks blocks = quantise_blocks(x, {.power_of_two = power});
      EXPECT_FALSE(blocks.scales[0][0].isnan().item<bool>());
      EXPECT_TRUE(blocks.scales[0][1].isnan().item<bool>());
    }
  }
}

TEST(Fp8, TinyNumbersAreZeroOrWhatTheyWere) {
  const at::Tensor x = at::full({1, 128}, 1e-42f);
  const at::Tensor back = dequantise(quantise_rows(x, {}));
  EXPECT_TRUE(back.isfinite().all().item<bool>());
  EXPECT_TRUE(back.abs().le(1e-41).all().item<bool>());
}

TEST(Fp8, BlocksOfAnySizeAndTheirTransposed) {
  const at::Tensor weight = at::randn({2, 576, 200});
  const Fp8Blocks blocks = quantise_blocks(weight, {});
  ASSERT_EQ(blocks.scales.sizes(), at::IntArrayRef({2, 5, 2}));
  const at::Tensor block = weight[1].narrow(0, 512, 64).narrow(1, 128, 72);
  EXPECT_EQ(blocks.scales[1][4][1].item<float>(), block.abs().max().item<float>() / 448);
  expect_within(dequantise(blocks), weight, kE4m3Error, blocks.scales);
  const Fp8Blocks turned = transposed(blocks);
  const Fp8Blocks of_turned = quantise_blocks(weight.transpose(1, 2), {});
  EXPECT_TRUE(turned.scales.equal(of_turned.scales));
  EXPECT_TRUE(turned.values.to(at::kFloat).equal(of_turned.values.to(at::kFloat)));
  const Fp8Blocks one = quantise_blocks(weight[1], {});
  EXPECT_TRUE(one.scales.equal(blocks.scales[1]));
}

TEST(Fp8, ColumnsAreTheRowsOfTheTransposed) {
  const at::Tensor x = at::randn({200, 72});
  const Fp8Rows columns = quantise_columns(x, {});
  ASSERT_EQ(columns.values.sizes(), at::IntArrayRef({72, 200}));
  expect_within(dequantise(columns), x.t(), kE4m3Error, columns.scales);
}

TEST(Fp8, GroupsOfColumnsBeginAtMultiplesOf128) {
  const std::vector<int64_t> counts = {0, 3, 128, 0, 129, 1, 0};
  const at::Tensor ends = at::tensor({0, 3, 131, 131, 260, 261, 261}, at::kInt);
  const at::Tensor x = at::randn({270, 24});
  x.narrow(0, 261, 9).fill_(kInfinity);  // behind the last group
  const Fp8Columns columns = quantise_columns_of_groups(x, ends, {});
  EXPECT_TRUE(columns.ends.equal(at::tensor({0, 128, 256, 256, 512, 640, 640}, at::kInt)));
  EXPECT_EQ(columns.rows.values.size(1) % 128, 0);
  const at::Tensor all = dequantise(columns.rows);
  int64_t first = 0, padded = 0;
  for (const int64_t count : counts) {
    const Fp8Rows alone = quantise_columns(x.narrow(0, first, count), {});
    EXPECT_TRUE(all.narrow(1, padded, count).equal(dequantise(alone)));
    const int64_t behind = (count + 127) / 128 * 128 - count;
    EXPECT_TRUE(all.narrow(1, padded + count, behind).eq(0).all().item<bool>());
    first += count;
    padded += count + behind;
  }
  EXPECT_TRUE(all.narrow(1, padded, all.size(1) - padded).eq(0).all().item<bool>());
}

TEST(Fp8, AGpuGivesTheBitsOfTheHost) {
  SKIP_WITHOUT_GPU();
  const at::Tensor x = random_bf16({300, 576}), host = x.cpu();
  for (const bool power : {false, true}) {
    const Fp8Recipe recipe{.power_of_two = power};
    const Fp8Rows there = quantise_rows(x, recipe), here = quantise_rows(host, recipe);
    EXPECT_TRUE(there.scales.cpu().equal(here.scales));
    EXPECT_TRUE(dequantise(there).cpu().equal(dequantise(here)));
    const Fp8Blocks blocks = quantise_blocks(x, recipe);
    EXPECT_TRUE(dequantise(blocks).cpu().equal(dequantise(quantise_blocks(host, recipe))));
  }
  const at::Tensor ends = at::tensor({0, 3, 131, 300}, at::kInt);
  const Fp8Columns there = quantise_columns_of_groups(x, ends.cuda(), {});
  EXPECT_TRUE(dequantise(there.rows)
                  .cpu()
                  .equal(dequantise(quantise_columns_of_groups(host, ends, {}).rows)));
}

}  // namespace
}  // namespace moetron
