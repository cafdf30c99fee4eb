// The tensors of a source, cut into pieces that threads share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

struct TensorChunk {
  size_t tensor = 0;   // index in the source
  uint64_t begin = 0;  // elements
  uint64_t count = 0;
};

inline constexpr uint64_t kChunkElements = uint64_t{1} << 22;

// Elements of a tensor whose bytes fit 64 bits.
inline uint64_t num_elements(const SafetensorsTensor& tensor) {
  uint64_t count = 1;
  for (const int64_t dim : tensor.shape) count *= static_cast<uint64_t>(dim);
  return count;
}

// Pieces of at most kChunkElements, in order; none of a tensor without elements.
inline std::vector<TensorChunk> chunks_of(const SafetensorsTensor& tensor, size_t index) {
  std::vector<TensorChunk> chunks;
  const uint64_t elements = num_elements(tensor);
  for (uint64_t begin = 0; begin < elements; begin += kChunkElements)
    chunks.push_back({index, begin, std::min(kChunkElements, elements - begin)});
  return chunks;
}

}  // namespace moetron
