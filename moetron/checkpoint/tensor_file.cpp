#include "moetron/checkpoint/tensor_file.h"

#include <map>
#include <string_view>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/checkpoint_folder.h"
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

namespace {

TensorFile plan_file(const std::string& name, FileContent content,
                     std::span<const GlobalTensor> tensors) {
  std::vector<SafetensorsTensor> described;
  std::map<std::string_view, const GlobalTensor*> by_name;
  for (const GlobalTensor& tensor : tensors) {
    described.push_back(tensor.description);
    by_name[tensor.description.name] = &tensor;
  }
  TensorFile file{name, content, layout_safetensors(std::move(described)), {}};
  for (const SafetensorsEntry& entry : file.layout.tensors) {
    file.boxes.push_back(by_name.at(entry.name)->boxes);
  }
  return file;
}

}  // namespace

TensorFile plan_state_file(std::span<const GlobalTensor> states) {
  return plan_file(kOptimizerFile, FileContent::kStates, states);
}

std::vector<TensorFile> plan_model_files(std::span<const GlobalTensor> weights,
                                         uint64_t shard_bytes) {
  std::vector<std::span<const GlobalTensor>> shards;
  size_t first = 0;
  uint64_t filled = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto bytes = tensor_bytes(weights[i].description.dtype, weights[i].description.shape);
    MT_CHECK(bytes, weights[i].description.name, " has an impossible shape");
    if (filled > 0 && filled + *bytes > shard_bytes) {
      shards.push_back(weights.subspan(first, i - first));
      first = i;
      filled = 0;
    }
    filled += *bytes;
  }
  shards.push_back(weights.subspan(first));
  std::vector<TensorFile> files;
  const int num_shards = static_cast<int>(shards.size());
  for (int shard = 0; shard < num_shards; ++shard) {
    files.push_back(plan_file(shard_file_name(shard, num_shards), FileContent::kWeights,
                              shards[static_cast<size_t>(shard)]));
  }
  return files;
}

}  // namespace moetron
