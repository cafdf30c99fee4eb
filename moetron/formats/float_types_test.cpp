#include "moetron/formats/float_types.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

namespace moetron {
namespace {

using enum SafetensorsDtype;

float widened(SafetensorsDtype dtype, uint32_t bits) {
  float value = 0;
  const auto bytes = std::as_bytes(std::span(&bits, 1)).first(dtype_bits(dtype) / 8);
  widen(dtype, bytes, {&value, 1});
  return value;
}

uint32_t narrowed(float value, SafetensorsDtype dtype) {
  uint32_t bits = 0;
  narrow({&value, 1}, dtype,
         std::as_writable_bytes(std::span(&bits, 1)).first(dtype_bits(dtype) / 8));
  return bits;
}

// From the definition: (-1)^sign * 2^(exponent - bias) * 1.mantissa.
double by_definition(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto exponent = static_cast<int>(bits >> mantissa_bits & ((1U << exponent_bits) - 1));
  const auto mantissa = static_cast<double>(bits & ((1U << mantissa_bits) - 1));
  const double one = std::ldexp(1.0, mantissa_bits);
  const double magnitude = exponent == 0 ? std::ldexp(mantissa / one, 1 - bias)
                                         : std::ldexp((one + mantissa) / one, exponent - bias);
  return bits >> (exponent_bits + mantissa_bits) & 1 ? -magnitude : magnitude;
}

struct Type {
  SafetensorsDtype dtype;
  int exponent_bits, mantissa_bits;
  uint32_t greatest;  // bits of the greatest finite number
};
constexpr Type kTypes[] = {{kBF16, 8, 7, 0x7f7f}, {kF16, 5, 10, 0x7bff}, {kF8E4M3, 4, 3, 0x7e}};

TEST(FloatTypes, EveryNumberIsWhatTheTypeDefines) {
  for (const Type& type : kTypes) {
    for (uint32_t bits = 0; bits <= type.greatest; ++bits) {
      const double expected = by_definition(bits, type.exponent_bits, type.mantissa_bits);
      ASSERT_EQ(widened(type.dtype, bits), expected) << dtype_name(type.dtype) << " " << bits;
      ASSERT_EQ(narrowed(static_cast<float>(expected), type.dtype), bits);
      ASSERT_EQ(narrowed(static_cast<float>(-expected), type.dtype),
                bits | 1U << (dtype_bits(type.dtype) - 1));
    }
  }
}

// Between two neighbours: the nearer one, and of the middle the even one.
TEST(FloatTypes, RoundsToTheNearest) {
  for (const Type& type : kTypes) {
    for (uint32_t bits = 0; bits < type.greatest; ++bits) {
      const float low = widened(type.dtype, bits), high = widened(type.dtype, bits + 1);
      const auto middle = static_cast<float>((static_cast<double>(low) + high) / 2);
      ASSERT_EQ(narrowed(middle, type.dtype), bits + (bits & 1)) << dtype_name(type.dtype);
      ASSERT_EQ(narrowed(std::nextafter(middle, 0.0F), type.dtype), bits);
      ASSERT_EQ(narrowed(std::nextafter(middle, high), type.dtype), bits + 1);
    }
  }
}

TEST(FloatTypes, TellsInfinityAndWhatIsNoNumber) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(widened(kBF16, 0x7f80), kInfinity);
  EXPECT_EQ(widened(kF16, 0xfc00), -kInfinity);
  EXPECT_TRUE(std::isnan(widened(kBF16, 0x7fc0)));
  EXPECT_TRUE(std::isnan(widened(kF16, 0x7e00)));
  EXPECT_TRUE(std::isnan(widened(kF8E4M3, 0x7f)) && std::isnan(widened(kF8E4M3, 0xff)));
  EXPECT_EQ(narrowed(kInfinity, kBF16), 0x7f80U);
  EXPECT_EQ(narrowed(-1e30F, kF16), 0xfc00U);
  EXPECT_EQ(narrowed(-std::nanf(""), kF16), 0xfe00U);
  EXPECT_EQ(narrowed(std::nanf(""), kBF16), 0x7fc0U);
  EXPECT_EQ(narrowed(480, kF8E4M3), 0x7fU);  // beyond 448 and half a step
  EXPECT_EQ(narrowed(std::nanf(""), kF8E4M3), 0x7fU);
}

TEST(FloatTypes, ConvertsStretchesOfAnyLengthAtAnyAddress) {
  const std::vector<float> values(10'001, 1.5F);
  std::vector<std::byte> source(1 + values.size() * 4), target(1 + values.size() * 2);
  std::memcpy(source.data() + 1, values.data(), values.size() * 4);
  convert_floats(kF32, std::span(source).subspan(1), kBF16, std::span(target).subspan(1));
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::to_integer<int>(target[1 + 2 * i]), 0xc0);
    ASSERT_EQ(std::to_integer<int>(target[2 + 2 * i]), 0x3f);
  }
}

}  // namespace
}  // namespace moetron
