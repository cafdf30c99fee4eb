#include <array>

#include "moetron/formats/safetensors.h"

namespace moetron {
namespace {

struct DtypeRow {
  std::string_view name;
  int bits;
};

// One row for each SafetensorsDtype, in its order.
constexpr std::array<DtypeRow, 22> kDtypes = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

}  // namespace

std::string_view dtype_name(SafetensorsDtype dtype) {
  return kDtypes.at(static_cast<size_t>(dtype)).name;
}

std::optional<SafetensorsDtype> dtype_from_name(std::string_view name) {
  for (size_t i = 0; i < kDtypes.size(); ++i)
    if (kDtypes[i].name == name) return static_cast<SafetensorsDtype>(i);
  return std::nullopt;
}

int dtype_bits(SafetensorsDtype dtype) {
  return kDtypes.at(static_cast<size_t>(dtype)).bits;
}

std::optional<uint64_t> tensor_bytes(SafetensorsDtype dtype, std::span<const int64_t> shape) {
  uint64_t bits = static_cast<uint64_t>(dtype_bits(dtype));
  // A zero dimension does not excuse an overflow before it: the reference reader refuses both.
  uint64_t elements = 1;
  for (const int64_t dim : shape) {
    if (dim < 0) return std::nullopt;
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(dim), &elements))
      return std::nullopt;
  }
  if (__builtin_mul_overflow(bits, elements, &bits)) return std::nullopt;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t dim : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(dim);
  return text + "]";
}

}  // namespace moetron
