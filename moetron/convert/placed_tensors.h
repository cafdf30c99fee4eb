// Tensors that lie in pieces in files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "moetron/convert/tensor_source.h"

namespace moetron {

// A rectangle of a tensor, whose rows lie one behind the other in a file; or, where there is a
// stride, whose columns lie so many elements one behind the other. A tensor of one dimension has
// columns of one element.
struct TensorPart {
  size_t file = 0;
  uint64_t offset = 0;  // bytes
  uint64_t row = 0;
  uint64_t rows = 0;
  uint64_t column = 0;
  uint64_t columns = 0;
  uint64_t stride = 0;
};

// Whoever derives from this says where the parts are; together they cover each tensor.
class PlacedTensors : public TensorSource {
 public:
  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 protected:
  std::vector<std::filesystem::path> files_;
  std::vector<SafetensorsTensor> tensors_;      // sorted by name
  std::vector<std::vector<TensorPart>> parts_;  // of each tensor
};

}  // namespace moetron
