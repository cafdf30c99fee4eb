#include "moetron/formats/float_types.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr uint32_t kSign = 0x80000000U;
constexpr uint32_t kFloatInfinity = 0x7f800000U;

float widen_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

uint16_t round_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
  const bool is_nan = (bits & ~kSign) > kFloatInfinity;
  return static_cast<uint16_t>(is_nan ? 0x7fc0U : rounded >> 16);
}

// Both directions of fp16 move the exponent by a multiplication, which also makes subnormal
// numbers normal, and back: no branch, so that the compiler can do several at once.
float widen_fp16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  const uint32_t shifted = bits + bits;  // without the sign
  const float normal = std::bit_cast<float>((shifted >> 4) + (0xe0U << 23)) * 0x1.0p-112F;
  const float subnormal = std::bit_cast<float>((shifted >> 17) | (126U << 23)) - 0.5F;
  const uint32_t result = std::bit_cast<uint32_t>(shifted < (1U << 27) ? subnormal : normal);
  return std::bit_cast<float>(result | (bits & kSign));
}

uint16_t round_to_fp16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t shifted = bits + bits;
  const uint32_t bias = std::max(shifted & 0xff000000U, 0x71000000U);
  // Adding a number whose last bit is fp16's last bit rounds there.
  const float scaled = (std::abs(value) * 0x1.0p+112F) * 0x1.0p-110F;
  const auto rounded =
      std::bit_cast<uint32_t>(std::bit_cast<float>((bias >> 1) + 0x07800000U) + scaled);
  const uint32_t magnitude = ((rounded >> 13) & 0x7c00U) + (rounded & 0xfffU);
  const bool is_nan = shifted > 0xff000000U;
  return static_cast<uint16_t>((bits & kSign) >> 16 | (is_nan ? 0x7e00U : magnitude));
}

std::array<float, 256> e4m3_values() {
  std::array<float, 256> values{};
  for (uint32_t bits = 0; bits < 256; ++bits) {
    const int exponent = static_cast<int>(bits >> 3 & 15U);
    const auto mantissa = static_cast<float>(bits & 7U);
    float value = exponent > 0 ? std::ldexp(8 + mantissa, exponent - 10) : std::ldexp(mantissa, -9);
    if ((bits & 0x7fU) == 0x7fU) value = std::numeric_limits<float>::quiet_NaN();
    values[bits] = bits >> 7 ? -value : value;
  }
  return values;
}

uint8_t round_to_e4m3(float value) {
  constexpr uint32_t kFirstBeyond = 1087U << 20;   // 480, half a step above which nothing is kept
  constexpr uint32_t kFirstNormal = 121U << 23;    // 2^-6
  constexpr uint32_t kSubnormalStep = 141U << 23;  // whose last bit is 2^-9
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t magnitude = bits & ~kSign;
  uint32_t result = 0x7f;
  if (magnitude < kFirstNormal) {
    const float sum = std::bit_cast<float>(magnitude) + std::bit_cast<float>(kSubnormalStep);
    result = std::bit_cast<uint32_t>(sum) - kSubnormalStep;
  } else if (magnitude < kFirstBeyond) {
    const uint32_t is_odd = (magnitude >> 20) & 1U;
    result = (magnitude - (120U << 23) + 0x7ffffU + is_odd) >> 20;
  }
  return static_cast<uint8_t>(result | (bits & kSign) >> 24);
}

// The bytes may lie anywhere: elements are copied before they are looked at.
template <class Stored, class Widen>
void widen_all(std::span<const std::byte> bytes, std::span<float> out, const Widen& widen_one) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(Stored), sizeof(Stored));
    out[i] = widen_one(stored);
  }
}

template <class Stored, class Round>
void narrow_all(std::span<const float> values, std::span<std::byte> bytes, const Round& round) {
  for (size_t i = 0; i < values.size(); ++i) {
    const Stored stored = round(values[i]);
    std::memcpy(bytes.data() + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

void check_sizes(SafetensorsDtype dtype, size_t num_bytes, size_t count) {
  const auto item_bytes = static_cast<size_t>(dtype_bits(dtype) / 8);
  MT_CHECK(num_bytes == count * item_bytes, num_bytes, " bytes do not hold ", count,
           " elements of type ", dtype_name(dtype));
}

}  // namespace

bool is_plain_float(SafetensorsDtype dtype) {
  return dtype == SafetensorsDtype::kF32 || dtype == SafetensorsDtype::kBF16 ||
         dtype == SafetensorsDtype::kF16;
}

void widen(SafetensorsDtype from, std::span<const std::byte> bytes, std::span<float> out) {
  check_sizes(from, bytes.size(), out.size());
  if (out.empty()) return;
  switch (from) {
    case SafetensorsDtype::kF32:
      std::memcpy(out.data(), bytes.data(), bytes.size());
      return;
    case SafetensorsDtype::kBF16:
      return widen_all<uint16_t>(bytes, out, widen_bf16);
    case SafetensorsDtype::kF16:
      return widen_all<uint16_t>(bytes, out, widen_fp16);
    case SafetensorsDtype::kF8E4M3: {
      static const std::array<float, 256> values = e4m3_values();
      return widen_all<uint8_t>(bytes, out, [](uint8_t stored) { return values[stored]; });
    }
    default:
      throw InternalError(concat(dtype_name(from), " is no type of weights"));
  }
}

void narrow(std::span<const float> values, SafetensorsDtype to, std::span<std::byte> bytes) {
  check_sizes(to, bytes.size(), values.size());
  if (values.empty()) return;
  switch (to) {
    case SafetensorsDtype::kF32:
      std::memcpy(bytes.data(), values.data(), bytes.size());
      return;
    case SafetensorsDtype::kBF16:
      return narrow_all<uint16_t>(values, bytes, round_to_bf16);
    case SafetensorsDtype::kF16:
      return narrow_all<uint16_t>(values, bytes, round_to_fp16);
    case SafetensorsDtype::kF8E4M3:
      return narrow_all<uint8_t>(values, bytes, round_to_e4m3);
    default:
      throw InternalError(concat(dtype_name(to), " is no type of weights"));
  }
}

void convert_floats(SafetensorsDtype from, std::span<const std::byte> bytes, SafetensorsDtype to,
                    std::span<std::byte> out) {
  constexpr size_t kChunk = 4096;
  std::array<float, kChunk> chunk;
  const auto from_bytes = static_cast<size_t>(dtype_bits(from) / 8);
  const auto to_bytes = static_cast<size_t>(dtype_bits(to) / 8);
  const size_t count = bytes.size() / from_bytes;
  check_sizes(from, bytes.size(), count);
  check_sizes(to, out.size(), count);
  for (size_t begin = 0; begin < count; begin += kChunk) {
    const size_t size = std::min(kChunk, count - begin);
    const std::span<float> values = std::span(chunk).first(size);
    widen(from, bytes.subspan(begin * from_bytes, size * from_bytes), values);
    narrow(values, to, out.subspan(begin * to_bytes, size * to_bytes));
  }
}

}  // namespace moetron
