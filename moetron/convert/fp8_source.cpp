#include "moetron/convert/fp8_source.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <utility>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"
#include "moetron/formats/float_types.h"
#include "moetron/formats/fp8_blocks.h"

namespace moetron {
namespace {

constexpr auto kBlock = static_cast<uint64_t>(kScaleBlock);

uint64_t bytes_of(SafetensorsDtype dtype, uint64_t count) {
  return count * static_cast<uint64_t>(dtype_bits(dtype) / 8);
}

// The matrix that scales belong to; "" for other tensors.
std::string scaled_name(const std::string& name) {
  return name.ends_with(kScaleSuffix) ? name.substr(0, name.size() - kScaleSuffix.size()) : "";
}

}  // namespace

bool has_scales(const TensorSource& source) {
  const std::vector<SafetensorsTensor>& tensors = source.tensors();
  return std::any_of(tensors.begin(), tensors.end(), [](const SafetensorsTensor& tensor) {
    return tensor.name.ends_with(kScaleSuffix);
  });
}

Fp8Source::Fp8Source(const TensorSource& source, std::string place)
    : source_(source), place_(std::move(place)) {
  const std::vector<SafetensorsTensor>& stored = source.tensors();
  for (size_t index = 0; index < stored.size(); ++index) {
    SafetensorsTensor tensor = stored[index];
    if (const std::string matrix = scaled_name(tensor.name); !matrix.empty()) {
      MT_CHECK_INPUT(find_tensor(source, matrix) < stored.size(), place_, ": tensor ", tensor.name,
                     " has no ", matrix, " beside it");
      continue;
    }
    const size_t scale = find_tensor(source, tensor.name + std::string(kScaleSuffix));
    std::optional<size_t> scale_index;
    if (scale < stored.size()) {
      check_scale(tensor, stored[scale], place_);
      tensor.dtype = SafetensorsDtype::kF32;
      scale_index = scale;
    }
    MT_CHECK_INPUT(tensor.dtype != SafetensorsDtype::kF8E4M3, place_, ": tensor ", tensor.name,
                   " is F8_E4M3, but has no ", tensor.name, kScaleSuffix, " beside it");
    tensors_.push_back(std::move(tensor));
    places_.push_back({index, scale_index});
  }
}

void Fp8Source::read(size_t index, uint64_t begin, uint64_t count,
                     std::span<std::byte> bytes) const {
  const Place& place = places_[index];
  if (!place.scale) return source_.read(place.weight, begin, count, bytes);
  const BlockScales scales(source_.tensors()[place.weight], source_.tensors()[*place.scale],
                           read_whole(source_, *place.scale), place_);
  const auto memory = std::make_unique_for_overwrite<std::byte[]>(count);
  const std::span<std::byte> bits(memory.get(), count);
  source_.read(place.weight, begin, count, bits);
  constexpr size_t kChunk = 4096;
  std::array<float, kChunk> values;
  for (size_t done = 0; done < count; done += kChunk) {
    const size_t size = std::min<size_t>(kChunk, count - done);
    scales.dequantise(begin + done, bits.subspan(done, size), std::span(values).first(size));
    std::memcpy(bytes.data() + done * sizeof(float), values.data(), size * sizeof(float));
  }
}

bool is_stored_in_8_bits(const SafetensorsTensor& tensor) {
  if (tensor.shape.size() != 2 || !is_plain_float(tensor.dtype)) return false;
  const std::string_view name = tensor.name;
  // eh_proj joins hidden states and embeddings for multi-token prediction.
  const bool is_projection =
      (name.ends_with("_proj.weight") && !name.ends_with(".eh_proj.weight")) ||
      name.ends_with(tensors::kKeyValueDown.name);
  return name.starts_with(kLayers) && is_projection;
}

Fp8Target::Fp8Target(const TensorSource& source) : source_(source) {
  const std::vector<SafetensorsTensor>& originals = source.tensors();
  std::vector<std::pair<SafetensorsTensor, Place>> all;
  for (size_t index = 0; index < originals.size(); ++index) {
    SafetensorsTensor tensor = originals[index];
    if (!is_stored_in_8_bits(tensor)) {
      all.emplace_back(std::move(tensor), Place{index, Kind::kAsItIs});
      continue;
    }
    const std::string scale = tensor.name + std::string(kScaleSuffix);
    MT_CHECK_INPUT(find_tensor(source, scale) == originals.size(), "tensor ", scale,
                   " is there already: the model is in 8 bits");
    all.emplace_back(SafetensorsTensor{scale, SafetensorsDtype::kF32, scale_shape(tensor.shape)},
                     Place{index, Kind::kScales});
    tensor.dtype = SafetensorsDtype::kF8E4M3;
    all.emplace_back(std::move(tensor), Place{index, Kind::kBits});
  }
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.first.name < b.first.name; });
  for (auto& [tensor, place] : all) {
    tensors_.push_back(std::move(tensor));
    places_.push_back(place);
  }
}

void Fp8Target::read(size_t index, uint64_t begin, uint64_t count,
                     std::span<std::byte> bytes) const {
  if (count == 0) return;
  const Place& place = places_[index];
  switch (place.kind) {
    case Kind::kAsItIs:
      return source_.read(place.source, begin, count, bytes);
    case Kind::kBits:
      return read_bits(place.source, begin, bytes);
    case Kind::kScales:
      return read_scales(place.source, begin, bytes);
  }
}

Fp8Target::Band Fp8Target::read_band(size_t source_index, uint64_t band) const {
  const SafetensorsTensor& tensor = source_.tensors()[source_index];
  const auto rows = static_cast<uint64_t>(tensor.shape[0]);
  const auto columns = static_cast<uint64_t>(tensor.shape[1]);
  Band result{band * kBlock, {}, {}};
  const uint64_t count = std::min(kBlock, rows - result.first_row) * columns;
  std::vector<std::byte> bytes(bytes_of(tensor.dtype, count));
  source_.read(source_index, result.first_row * columns, count, bytes);
  result.values.resize(count);
  widen(tensor.dtype, bytes, result.values);
  result.scales = scales_of_band(result.values, columns, "tensor " + tensor.name);
  return result;
}

void Fp8Target::read_bits(size_t source_index, uint64_t begin, std::span<std::byte> bytes) const {
  const auto columns = static_cast<uint64_t>(source_.tensors()[source_index].shape[1]);
  const uint64_t end = begin + bytes.size();
  for (uint64_t band = begin / columns / kBlock; band * kBlock * columns < end; ++band) {
    const Band read = read_band(source_index, band);
    const uint64_t band_begin = read.first_row * columns;
    uint64_t at = std::max(begin, band_begin);
    const uint64_t stop = std::min(end, band_begin + read.values.size());
    while (at < stop) {
      const uint64_t column = at % columns;
      const uint64_t count = std::min(columns - column, stop - at);
      quantise(std::span(read.values).subspan(at - band_begin, count), column, read.scales,
               bytes.subspan(at - begin, count));
      at += count;
    }
  }
}

void Fp8Target::read_scales(size_t source_index, uint64_t begin, std::span<std::byte> bytes) const {
  const std::vector<int64_t> shape = scale_shape(source_.tensors()[source_index].shape);
  const auto in_row = static_cast<uint64_t>(shape[1]);
  const uint64_t end = begin + bytes.size() / sizeof(float);
  for (uint64_t band = begin / in_row; band * in_row < end; ++band) {
    const Band read = read_band(source_index, band);
    const uint64_t first = std::max(begin, band * in_row);
    const uint64_t last = std::min(end, (band + 1) * in_row);
    std::memcpy(bytes.data() + (first - begin) * sizeof(float),
                read.scales.data() + (first - band * in_row), (last - first) * sizeof(float));
  }
}

}  // namespace moetron
