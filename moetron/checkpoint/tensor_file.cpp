#include "moetron/checkpoint/tensor_file.h"

#include <map>
#include <string_view>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/adapter_files.h"
#include "moetron/checkpoint/checkpoint_folder.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {

namespace {

// What checkpoints hold.
constexpr std::pair<at::ScalarType, SafetensorsDtype> kTypes[] = {
    {at::kFloat, SafetensorsDtype::kF32},
    {at::kBFloat16, SafetensorsDtype::kBF16},
    {at::kHalf, SafetensorsDtype::kF16},
    {at::kDouble, SafetensorsDtype::kF64},
    {at::kLong, SafetensorsDtype::kI64}};

}  // namespace

SafetensorsDtype stored_dtype(at::ScalarType type) {
  for (const auto& [loaded, stored] : kTypes)
    if (loaded == type) return stored;
  throw InternalError(concat("checkpoints hold no tensors of type ", at::toString(type)));
}

std::optional<at::ScalarType> loaded_type(SafetensorsDtype dtype) {
  for (const auto& [loaded, stored] : kTypes)
    if (stored == dtype) return loaded;
  return std::nullopt;
}

namespace {

TensorFile plan_file(const std::string& name, FileContent content,
                     std::span<const GlobalTensor> tensors) {
  std::vector<SafetensorsTensor> described;
  std::map<std::string_view, const GlobalTensor*> by_name;
  for (const GlobalTensor& tensor : tensors) {
    described.push_back(tensor.description);
    described.back().shape = shape_in_file(tensor.description.name, tensor.description.shape);
    by_name[tensor.description.name] = &tensor;
  }
  TensorFile file{name, content, layout_safetensors(std::move(described)), {}};
  for (SafetensorsEntry& entry : file.layout.tensors) {
    entry.shape = by_name.at(entry.name)->description.shape;  // which the boxes are boxes of
    file.boxes.push_back(by_name.at(entry.name)->boxes);
  }
  return file;
}

}  // namespace

TensorFile plan_state_file(std::span<const GlobalTensor> states) {
  return plan_file(kOptimizerFile, FileContent::kStates, states);
}

TensorFile plan_adapter_file(std::span<const GlobalTensor> weights) {
  return plan_file(kAdapterFile, FileContent::kWeights, weights);
}

std::vector<TensorFile> plan_model_files(std::span<const GlobalTensor> weights,
                                         uint64_t shard_bytes) {
  std::vector<uint64_t> bytes_of_tensors;
  for (const GlobalTensor& weight : weights) {
    const auto bytes = tensor_bytes(weight.description.dtype, weight.description.shape);
    MT_CHECK(bytes, weight.description.name, " has an impossible shape");
    bytes_of_tensors.push_back(*bytes);
  }
  const std::vector<size_t> ends = shard_ends(bytes_of_tensors, shard_bytes);
  std::vector<TensorFile> files;
  const int num_shards = static_cast<int>(ends.size());
  size_t first = 0;
  for (int shard = 0; shard < num_shards; ++shard) {
    const size_t end = ends[static_cast<size_t>(shard)];
    files.push_back(plan_file(shard_file_name(shard, num_shards), FileContent::kWeights,
                              weights.subspan(first, end - first)));
    first = end;
  }
  return files;
}

}  // namespace moetron
