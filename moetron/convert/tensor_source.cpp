#include "moetron/convert/tensor_source.h"

#include <algorithm>

namespace moetron {

size_t find_tensor(const TensorSource& source, std::string_view name) {
  const std::vector<SafetensorsTensor>& tensors = source.tensors();
  const auto found = std::lower_bound(
      tensors.begin(), tensors.end(), name,
      [](const SafetensorsTensor& tensor, std::string_view key) { return tensor.name < key; });
  const bool is_there = found != tensors.end() && found->name == name;
  return is_there ? static_cast<size_t>(found - tensors.begin()) : tensors.size();
}

}  // namespace moetron
