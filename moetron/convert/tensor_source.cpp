#include "moetron/convert/tensor_source.h"

#include <algorithm>

namespace moetron {

std::vector<std::byte> read_whole(const TensorSource& source, size_t index) {
  const SafetensorsTensor& tensor = source.tensors()[index];
  std::vector<std::byte> bytes(tensor_bytes(tensor.dtype, tensor.shape).value());
  source.read(index, 0, bytes.size() / static_cast<uint64_t>(dtype_bits(tensor.dtype) / 8), bytes);
  return bytes;
}

size_t find_tensor(const TensorSource& source, std::string_view name) {
  const std::vector<SafetensorsTensor>& tensors = source.tensors();
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const SafetensorsTensor& tensor, std::string_view key) { return tensor.name < key; });
  const bool is_there = found != tensors.end() && found->name == name;
  return is_there ? static_cast<size_t>(found - tensors.begin()) : tensors.size();
}

}  // namespace moetron
