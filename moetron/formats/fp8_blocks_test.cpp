#include "moetron/formats/fp8_blocks.h"

#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/formats/float_types.h"

namespace moetron {
namespace {

using testing::HasSubstr;
using enum SafetensorsDtype;

constexpr int64_t kRows = 130, kColumns = 300;  // edge blocks of 2 rows, and of 44 columns

std::vector<float> some_values() {
  std::vector<float> values(kRows * kColumns);
  for (size_t i = 0; i < values.size(); ++i)
    values[i] = std::sin(static_cast<float>(i)) * (i / kColumns < 128 ? 1.0F : 1e-3F);
  return values;
}

TEST(Fp8Blocks, AnElementIsItsBitsTimesTheScaleOfItsBlock) {
  std::vector<float> scales(2 * 3);
  std::iota(scales.begin(), scales.end(), 1.0F);
  const BlockScales blocks({"w", kF8E4M3, {kRows, kColumns}}, {"w_scale_inv", kF32, {2, 3}},
                           std::as_bytes(std::span(scales)), "file");
  const std::vector<std::byte> bits(kRows * kColumns, std::byte{0x38});  // 1.0
  std::vector<float> all(bits.size());
  blocks.dequantise(0, bits, all);
  for (int64_t row = 0; row < kRows; ++row) {
    for (int64_t column = 0; column < kColumns; ++column) {
      const float expected = scales[static_cast<size_t>(row / 128 * 3 + column / 128)];
      ASSERT_EQ(all[static_cast<size_t>(row * kColumns + column)], expected)
          << row << " " << column;
    }
  }
  // From anywhere.
  for (const uint64_t begin : {1UL, 127UL, 299UL, 127UL * 300 + 290}) {
    std::vector<float> part(600);
    blocks.dequantise(begin, std::span(bits).first(part.size()), part);
    for (size_t i = 0; i < part.size(); ++i) ASSERT_EQ(part[i], all[begin + i]);
  }
}

TEST(Fp8Blocks, QuantisesEachBlockByItsGreatest) {
  const std::vector<float> values = some_values();
  for (const int64_t first_row : {0, 128}) {
    const int64_t rows = std::min<int64_t>(128, kRows - first_row);
    const auto band = std::span(values).subspan(static_cast<size_t>(first_row * kColumns),
                                                static_cast<size_t>(rows * kColumns));
    const std::vector<float> scales = scales_of_band(band, kColumns, "w");
    ASSERT_EQ(scales.size(), 3U);
    for (int64_t row = 0; row < rows; ++row) {
      const auto line = band.subspan(static_cast<size_t>(row * kColumns), kColumns);
      std::vector<std::byte> bits(kColumns);
      // In two parts, of which the second begins within a block.
      quantise(line.first(77), 0, scales, std::span(bits).first(77));
      quantise(line.subspan(77), 77, scales, std::span(bits).subspan(77));
      std::vector<float> back(kColumns);
      widen(kF8E4M3, bits, back);
      for (size_t i = 0; i < line.size(); ++i) {
        const float scale = scales[i / 128];
        // Half a step: 2^-4 of a normal number, 2^-10 of a subnormal one, in units of the scale.
        const float bound = std::max(std::abs(line[i]) / 16, scale * 0x1.0p-10F) * 1.0001F;
        ASSERT_LE(std::abs(back[i] * scale - line[i]), bound);
      }
    }
    float greatest = 0;
    for (size_t i = 0; i < 128; ++i) {
      for (int64_t row = 0; row < rows; ++row)
        greatest = std::max(greatest, std::abs(band[static_cast<size_t>(row * kColumns) + i]));
    }
    EXPECT_EQ(scales[0], greatest / 448);
  }
}

TEST(Fp8Blocks, ZeroesAndTinyNumbersHaveAScale) {
  for (const float value : {0.0F, 1e-44F, -1e-37F}) {
    const std::vector<float> values(128, value);
    const std::vector<float> scales = scales_of_band(values, 128, "w");
    EXPECT_TRUE(std::isnormal(scales[0]));
    std::vector<std::byte> bits(128);
    quantise(values, 0, scales, bits);
    std::vector<float> back(128);
    widen(kF8E4M3, bits, back);
    EXPECT_NEAR(back[5] * scales[0], value, 1e-38);
  }
}

TEST(Fp8Blocks, RefusesWhatDoesNotFit) {
  const auto why = [](const SafetensorsTensor& weight, const SafetensorsTensor& scale) {
    try {
      check_scale(weight, scale, "dir");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(why({"w", kF8E4M3, {129, 5}}, {"s", kF32, {2, 1}}), "accepted");
  EXPECT_EQ(why({"w", kF8E4M3, {129, 5}}, {"s", kF32, {1, 1}}),
            "dir: tensor s is F32 of shape [1, 1], but w of shape [129, 5] needs F32 of shape "
            "[2, 1]");
  EXPECT_THAT(why({"w", kF8E4M3, {129, 5}}, {"s", kI32, {2, 1}}), HasSubstr("s is I32"));
  EXPECT_THAT(why({"w", kBF16, {129, 5}}, {"s", kF32, {2, 1}}), HasSubstr("w is BF16"));
  EXPECT_THAT(why({"w", kF8E4M3, {2, 129, 5}}, {"s", kF32, {2, 2, 1}}), HasSubstr("[2, 129, 5]"));
  const std::vector<float> values{1, std::nanf("")};
  EXPECT_THROW(scales_of_band(values, 2, "w"), InputError);
}

}  // namespace
}  // namespace moetron
