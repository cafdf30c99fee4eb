#include "moetron/checkpoint/tensor_file.h"

#include <map>
#include <string_view>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {

SafetensorsDtype stored_dtype(at::ScalarType type) {
  if (type == at::kFloat) return SafetensorsDtype::kF32;
  if (type == at::kBFloat16) return SafetensorsDtype::kBF16;
  if (type == at::kHalf) return SafetensorsDtype::kF16;
  if (type == at::kDouble) return SafetensorsDtype::kF64;
  if (type == at::kLong) return SafetensorsDtype::kI64;
  throw InternalError(concat("checkpoints hold no tensors of type ", at::toString(type)));
}

TensorFile plan_file(const std::string& name, std::span<const GlobalTensor> tensors,
                     std::span<const NamedSlice> slices) {
  std::vector<SafetensorsTensor> described;
  std::map<std::string_view, const GlobalTensor*> by_name;
  for (const GlobalTensor& tensor : tensors) {
    described.push_back(tensor.description);
    by_name[tensor.description.name] = &tensor;
  }
  TensorFile file{name, layout_safetensors(std::move(described)), {}, slices};
  for (const SafetensorsEntry& entry : file.layout.tensors) {
    file.boxes.push_back(by_name.at(entry.name)->boxes);
  }
  return file;
}

std::vector<TensorFile> plan_model_files(std::span<const GlobalTensor> tensors,
                                         std::span<const NamedSlice> slices, uint64_t shard_bytes) {
  std::vector<std::span<const GlobalTensor>> shards;
  size_t first = 0;
  uint64_t filled = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto bytes = tensor_bytes(tensors[i].description.dtype, tensors[i].description.shape);
    MT_CHECK(bytes, tensors[i].description.name, " has an impossible shape");
    if (filled > 0 && filled + *bytes > shard_bytes) {
      shards.push_back(tensors.subspan(first, i - first));
      first = i;
      filled = 0;
    }
    filled += *bytes;
  }
  shards.push_back(tensors.subspan(first));
  std::vector<TensorFile> files;
  const int num_shards = static_cast<int>(shards.size());
  for (int shard = 0; shard < num_shards; ++shard) {
    files.push_back(plan_file(shard_file_name(shard, num_shards), shards[shard], slices));
  }
  return files;
}

}  // namespace moetron
