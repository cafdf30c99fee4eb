#include "moetron/kernels/fp8.h"

#include <limits>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr at::ScalarType kE4m3 = at::kFloat8_e4m3fn;
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
    const Fp8Rows rows = quantise_rows(x, kE4m3);
    ASSERT_EQ(rows.values.sizes(), x.sizes());
    ASSERT_EQ(rows.scales.sizes(), at::IntArrayRef({(size + 127) / 128, 37}));
    EXPECT_EQ(rows.scales.stride(0) % 4, 0);
    expect_within(dequantise(rows), x, kE4m3Error, rows.scales);
    const Fp8Rows rough = quantise_rows(x, at::kFloat8_e5m2);
    expect_within(dequantise(rough), x, kE5m2Error, rough.scales);
  }
  const at::Tensor x = at::randn({256, 4096});
  const double error = relative_error(dequantise(quantise_rows(x, kE4m3)), x);
  std::printf("E4M3 of normal numbers: relative error %.4f\n", error);
  EXPECT_LT(error, 0.03);  // a uniform error of at most 1/16 has 1/16 / sqrt(3) at its worst
}

TEST(Fp8, AScaleIsTheSmallestPowerOfTwoThatFits) {
  const at::Tensor x = at::zeros({2, 300});
  x[0][5] = -7.0f;
  x[0][299] = 3.0f;
  const Fp8Rows rows = quantise_rows(x, kE4m3);
  EXPECT_EQ(rows.values.to(at::kFloat)[0][5].item<float>(), -448);
  EXPECT_EQ(rows.values.to(at::kFloat)[0][299].item<float>(), 384);
  EXPECT_EQ(rows.scales[0][0].item<float>(), 7.0f / 448);
  EXPECT_EQ(rows.scales[2][0].item<float>(), 3.0f / 384);
  EXPECT_EQ(rows.scales[1][0].item<float>(), kSmallestScale);  // zeros alone
  EXPECT_TRUE(dequantise(rows).eq(0).sum().item<int64_t>() == 598);

  const at::Tensor wide = at::randn({64, 256}) * at::logspace(-30, 30, 64).unsqueeze(1);
  const at::Tensor exact = wide.abs().view({64, 2, 128}).amax({2}).div(448).t();
  const at::Tensor powers = quantise_rows(wide, kE4m3).scales;
  EXPECT_TRUE(std::get<0>(at::frexp(powers)).eq(0.5).all().item<bool>());
  EXPECT_TRUE(powers.ge(exact).all().item<bool>());
  EXPECT_TRUE(powers.lt(exact * 2).all().item<bool>());
}

TEST(Fp8, WhatIsNotFiniteMakesItsTileNaN) {
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
    const at::Tensor x = at::ones({3, 256});
    x[1][130] = bad;
    const Fp8Rows rows = quantise_rows(x, kE4m3);
    EXPECT_EQ(rows.scales.isnan().sum().item<int64_t>(), 1);
    EXPECT_TRUE(rows.scales[1][1].isnan().item<bool>());
    const at::Tensor columns = dequantise(columns_of(rows).blocks);  // [256, 128]
    EXPECT_FALSE(columns.narrow(0, 0, 128).isnan().any().item<bool>());
    EXPECT_TRUE(columns.narrow(0, 128, 128).isnan().all().item<bool>());
    const Fp8Blocks blocks = quantise_blocks(x, kE4m3);
    EXPECT_FALSE(blocks.scales[0][0].isnan().item<bool>());
    EXPECT_TRUE(blocks.scales[0][1].isnan().item<bool>());
  }
}

TEST(Fp8, TinyNumbersAreZeroOrWhatTheyWere) {
  const at::Tensor x = at::full({1, 128}, 1e-42f);
  const at::Tensor back = dequantise(quantise_rows(x, kE4m3));
  EXPECT_TRUE(back.isfinite().all().item<bool>());
  EXPECT_TRUE(back.abs().le(1e-41).all().item<bool>());
}

TEST(Fp8, BlocksOfAnySizeAndTheirTransposed) {
  const at::Tensor weight = at::randn({2, 576, 200});
  const Fp8Blocks blocks = quantise_blocks(weight, kE4m3);
  ASSERT_EQ(blocks.scales.sizes(), at::IntArrayRef({2, 5, 2}));
  const at::Tensor block = weight[1].narrow(0, 512, 64).narrow(1, 128, 72);
  const float exact = block.abs().max().item<float>() / 448;
  EXPECT_GE(blocks.scales[1][4][1].item<float>(), exact);
  EXPECT_LT(blocks.scales[1][4][1].item<float>(), 2 * exact);
  expect_within(dequantise(blocks), weight, kE4m3Error, blocks.scales);
  const Fp8Blocks turned = transposed(blocks);
  const Fp8Blocks of_turned = quantise_blocks(weight.transpose(1, 2), kE4m3);
  EXPECT_TRUE(turned.scales.equal(of_turned.scales));
  EXPECT_TRUE(turned.values.to(at::kFloat).equal(of_turned.values.to(at::kFloat)));
  const Fp8Blocks one = quantise_blocks(weight[1], kE4m3);
  EXPECT_TRUE(one.scales.equal(blocks.scales[1]));
}

TEST(Fp8, ColumnsAreTheRowsNumbersUnderTheLargestOfTheirScales) {
  // Rows of unlike size, so that scales differ within a column.
  const at::Tensor x = at::randn({200, 136}) * at::logspace(-4, 4, 200).unsqueeze(1);
  const Fp8Rows rows = quantise_rows(x, kE4m3);
  const Fp8Blocks columns = columns_of(rows).blocks;
  ASSERT_EQ(columns.values.sizes(), at::IntArrayRef({136, 256}));
  const at::Tensor scale = rows.scales[0].narrow(0, 0, 128).max();
  EXPECT_TRUE(columns.scales[0][0].equal(scale));
  const at::Tensor got = dequantise(columns).narrow(1, 0, 200), same = dequantise(rows).t();
  // What lies far above the smallest of 8 bits is exact.
  const at::Tensor of_numbers =
      spread_over_rows(spread_over_rows(columns.scales, 136), 256).narrow(1, 0, 200);  // [136, 200]
  EXPECT_TRUE(
      at::where(same.abs().ge(of_numbers.mul(0x1p-6)), got.eq(same), at::ones_like(same, at::kBool))
          .all()
          .item<bool>());
  EXPECT_TRUE((got - same).abs().le(of_numbers.mul(0x1p-10)).all().item<bool>());
  EXPECT_TRUE(dequantise(columns).narrow(1, 200, 56).eq(0).all().item<bool>());
}

TEST(Fp8, GroupsOfColumnsBeginAtMultiplesOf128) {
  const std::vector<int64_t> counts = {0, 3, 128, 0, 129, 1, 0};
  const at::Tensor ends = at::tensor({0, 3, 131, 131, 260, 261, 261}, at::kInt);
  const at::Tensor x = at::randn({270, 24});
  x.narrow(0, 261, 9).fill_(kInfinity);  // behind the last group
  const Fp8Columns columns = columns_of(quantise_rows(x, kE4m3), ends);
  EXPECT_TRUE(columns.ends.equal(at::tensor({0, 128, 256, 256, 512, 640, 640}, at::kInt)));
  EXPECT_EQ(columns.blocks.values.size(1) % 128, 0);
  const at::Tensor all = dequantise(columns.blocks);
  int64_t first = 0, padded = 0;
  for (const int64_t count : counts) {
    const int64_t size = (count + 127) / 128 * 128;  // with the zeros behind
    const Fp8Rows alone = quantise_rows(x.narrow(0, first, count), kE4m3);
    EXPECT_TRUE(all.narrow(1, padded, size).equal(dequantise(columns_of(alone).blocks)));
    EXPECT_TRUE(all.narrow(1, padded + count, size - count).eq(0).all().item<bool>());
    first += count;
    padded += size;
  }
  EXPECT_TRUE(all.narrow(1, padded, all.size(1) - padded).eq(0).all().item<bool>());
}

template <class Quantised>
void expect_same(const Quantised& there, const Quantised& here) {
  EXPECT_TRUE(there.scales.cpu().equal(here.scales));
  EXPECT_TRUE(dequantise(there).cpu().equal(dequantise(here)));
}

// Kernels take what is aligned, ATen's operators the rest.
TEST(Fp8, AGpuGivesTheBitsOfTheHost) {
  SKIP_WITHOUT_GPU();
  poison_gpu_memory();
  for (const int64_t size : {8, 576, 1500, 4096}) {
    const at::Tensor x = random_bf16({301, size}) *
                         at::logspace(-6, 6, 301).unsqueeze(1).to(at::kCUDA).to(at::kBFloat16);
    const Fp8Rows there = quantise_rows(x, kE4m3), here = quantise_rows(x.cpu(), kE4m3);
    expect_same(there, here);
    expect_same(columns_of(there).blocks, columns_of(here).blocks);
    const at::Tensor ends = at::tensor({0, 3, 131, 131, 280}, at::kInt);
    const Fp8Columns columns = columns_of(there, ends.cuda()), same = columns_of(here, ends);
    expect_same(columns.blocks, same.blocks);
    EXPECT_TRUE(columns.ends.cpu().equal(same.ends));
  }
  for (const auto& sizes : {std::vector<int64_t>{576, 272}, {3, 144, 400}, {100, 72}}) {
    const at::Tensor weight = random_bf16(sizes);
    const Fp8Weight there = quantise_weight(weight, kE4m3),
                    here = quantise_weight(weight.cpu(), kE4m3);
    for (const auto& [a, b] : {std::pair{there.blocks, here.blocks}, {there.turned, here.turned}}) {
      EXPECT_TRUE(a.scales.cpu().equal(b.scales));
      EXPECT_TRUE(dequantise(a).cpu().equal(dequantise(b)));
    }
  }
}

TEST(Fp8, AGpuMakesNaNOfWhatIsNotFinite) {
  SKIP_WITHOUT_GPU();
  const at::Tensor x = random_bf16({130, 256});
  x[7][130] = kInfinity;
  const Fp8Rows rows = quantise_rows(x, kE4m3);
  EXPECT_EQ(dequantise(rows).isnan().sum().item<int64_t>(), 128);
  EXPECT_EQ(dequantise(columns_of(rows).blocks).isnan().sum().item<int64_t>(), 128 * 128);
  EXPECT_EQ(
      dequantise(quantise_weight(x.narrow(0, 0, 128), kE4m3).turned).isnan().sum().item<int64_t>(),
      128 * 128);
}

}  // namespace
}  // namespace moetron
