#include "moetron/checkpoint/carried_tensors.h"

#include <optional>
#include <set>
#include <string>
#include <utility>

#include <ATen/ATen.h>

#include "moetron/arch/layer_range.h"
#include "moetron/base/error.h"
#include "moetron/checkpoint/slice_reader.h"
#include "moetron/checkpoint/stored_weights.h"
#include "moetron/checkpoint/tensor_file.h"

namespace moetron {
namespace {

NamedSlice whole_slice(const SafetensorsTensor& tensor) {
  return {tensor.name, tensor.shape, std::vector<int64_t>(tensor.shape.size(), 0), {}};
}

// In 8 bits, with its scales.
NamedSlice multiplied_out(const StoredWeights& stored, const SafetensorsTensor& tensor,
                          const SafetensorsTensor& scale) {
  const StoredBytes bits = stored.read(tensor.name), scales = stored.read(scale.name);
  const BlockScales blocks(tensor, scale, scales.bytes, stored.place_of(scale.name));
  NamedSlice slice = whole_slice(tensor);
  slice.view = at::empty(tensor.shape, at::kBFloat16);
  fill_slice(slice, {tensor.dtype, bits.bytes, &blocks});
  return slice;
}

NamedSlice as_it_is(const StoredWeights& stored, const SafetensorsTensor& tensor) {
  const auto type = loaded_type(tensor.dtype);
  MT_CHECK_INPUT(type, stored.place_of(tensor.name), ": tensor ", tensor.name, " is ",
                 dtype_name(tensor.dtype), ", which a checkpoint cannot hold");
  NamedSlice slice = whole_slice(tensor);
  const StoredBytes read = stored.read(tensor.name);
  const auto address = reinterpret_cast<uintptr_t>(read.bytes.data());
  if (read.memory.empty() && address % at::elementSize(*type) == 0) {
    // Nobody writes through it.
    slice.view = at::from_blob(const_cast<std::byte*>(read.bytes.data()), tensor.shape, *type);
  } else {
    slice.view = at::empty(tensor.shape, *type);
    fill_slice(slice, {tensor.dtype, read.bytes});
  }
  return slice;
}

}  // namespace

CarriedTensors::CarriedTensors() = default;
CarriedTensors::CarriedTensors(CarriedTensors&&) noexcept = default;
CarriedTensors& CarriedTensors::operator=(CarriedTensors&&) noexcept = default;
CarriedTensors::~CarriedTensors() = default;

CarriedTensors::CarriedTensors(const std::filesystem::path& folder, const StoredModel& stored,
                               int64_t first, int64_t count, int rank, int num_ranks)
    : stored_(open_weights(folder, stored)) {
  std::set<int64_t> layers;
  int64_t number = 0;
  for (const std::string& name : stored_->names()) {
    const auto found = layer_name(name);
    if (!found || found->layer < first || found->layer >= first + count ||
        name.ends_with(kScaleSuffix))
      continue;
    layers.insert(found->layer);
    if (number++ % num_ranks != rank) continue;
    const SafetensorsTensor& tensor = *stored_->find(name);
    const SafetensorsTensor* scale = stored_->find(concat(name, kScaleSuffix));
    slices_.push_back(scale == nullptr ? as_it_is(*stored_, tensor)
                                       : multiplied_out(*stored_, tensor, *scale));
  }
  num_layers_ = static_cast<int64_t>(layers.size());
}

}  // namespace moetron
