// Filling slices from tensors in mapped safetensors files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "moetron/autograd/parameter.h"
#include "moetron/formats/fp8_blocks.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// A whole tensor of the slice's global shape, row-major, anywhere in memory (of any alignment).
struct StoredTensor {
  SafetensorsDtype dtype = SafetensorsDtype::kF32;
  std::span<const std::byte> bytes;
  const BlockScales* scales = nullptr;  // of a matrix in 8 bits, which is then read as F32
};

// Whether fill_slice() can turn one type into the other: equal types, and F32, BF16 and F16 among
// each other (to nearest even).
bool is_convertible(SafetensorsDtype from, SafetensorsDtype to);

void fill_slice(const NamedSlice& slice, const StoredTensor& tensor);

}  // namespace moetron
