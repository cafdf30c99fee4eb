// Where a conversion reads a model from.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "moetron/formats/safetensors.h"

namespace moetron {

// A model's tensors under their Hugging Face names and with their global shapes, wherever they lie.
// read() may be called from several threads.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual const std::vector<SafetensorsTensor>& tensors() const = 0;  // sorted by name
  // Copies elements [begin, begin + count), row-major, of tensors()[index]; `bytes` has their size.
  // InputError where the source is damaged.
  virtual void read(size_t index, uint64_t begin, uint64_t count,
                    std::span<std::byte> bytes) const = 0;
};

// All elements of tensors()[index].
std::vector<std::byte> read_whole(const TensorSource& source, size_t index);

// Index of a tensor by its name; tensors().size() where there is none.
size_t find_tensor(const TensorSource& source, std::string_view name);

}  // namespace moetron
