// The floating-point types of weights, in fp32 and back. What does not fit is rounded to the
// nearest, halves to even, as torch does.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "moetron/formats/safetensors.h"

namespace moetron {

// F32, BF16 and F16: what weights are without scales beside them.
bool is_plain_float(SafetensorsDtype dtype);

// out[i] = element i, exactly, of F32, BF16, F16 or F8_E4M3; the bytes may lie anywhere.
// InternalError for other types, or where the sizes do not fit.
void widen(SafetensorsDtype from, std::span<const std::byte> bytes, std::span<float> out);

// Rounds to F32, BF16, F16 or F8_E4M3. Of F8_E4M3, what rounds beyond its greatest number (448)
// becomes NaN.
void narrow(std::span<const float> values, SafetensorsDtype to, std::span<std::byte> bytes);

// Both in turn.
void convert_floats(SafetensorsDtype from, std::span<const std::byte> bytes, SafetensorsDtype to,
                    std::span<std::byte> out);

}  // namespace moetron
