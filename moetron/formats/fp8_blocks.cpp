#include "moetron/formats/fp8_blocks.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "moetron/base/error.h"
#include "moetron/formats/float_types.h"

namespace moetron {
namespace {

constexpr auto kBlock = static_cast<uint64_t>(kScaleBlock);
constexpr float kGreatest = 448;  // of F8_E4M3

}  // namespace

std::vector<int64_t> scale_shape(std::span<const int64_t> shape) {
  if (shape.size() != 2) return {};
  return {(shape[0] + kScaleBlock - 1) / kScaleBlock, (shape[1] + kScaleBlock - 1) / kScaleBlock};
}

void check_scale(const SafetensorsTensor& weight, const SafetensorsTensor& scale,
                 const std::string& place) {
  MT_CHECK_INPUT(weight.dtype == SafetensorsDtype::kF8E4M3 && weight.shape.size() == 2, place,
                 ": tensor ", weight.name, " is ", dtype_name(weight.dtype), " of shape ",
                 shape_text(weight.shape), ", but ", scale.name,
                 " belongs to a matrix of type F8_E4M3");
  MT_CHECK_INPUT(is_plain_float(scale.dtype) && scale.shape == scale_shape(weight.shape), place,
                 ": tensor ", scale.name, " is ", dtype_name(scale.dtype), " of shape ",
                 shape_text(scale.shape), ", but ", weight.name, " of shape ",
                 shape_text(weight.shape), " needs F32 of shape ",
                 shape_text(scale_shape(weight.shape)));
}

BlockScales::BlockScales(const SafetensorsTensor& weight, const SafetensorsTensor& scale,
                         std::span<const std::byte> bytes, const std::string& place) {
  check_scale(weight, scale, place);
  columns_ = static_cast<uint64_t>(weight.shape[1]);
  blocks_in_row_ = static_cast<uint64_t>(scale.shape[1]);
  scales_.resize(static_cast<size_t>(scale.shape[0] * scale.shape[1]));
  widen(scale.dtype, bytes, scales_);
}

void BlockScales::dequantise(uint64_t begin, std::span<const std::byte> bits,
                             std::span<float> out) const {
  widen(SafetensorsDtype::kF8E4M3, bits, out);
  for (uint64_t done = 0; done < out.size();) {
    const uint64_t row = (begin + done) / columns_, column = (begin + done) % columns_;
    const uint64_t block_end = std::min((column / kBlock + 1) * kBlock, columns_);
    const uint64_t count = std::min<uint64_t>(block_end - column, out.size() - done);
    const float scale = scales_[row / kBlock * blocks_in_row_ + column / kBlock];
    for (float& value : out.subspan(done, count)) value *= scale;
    done += count;
  }
}

std::vector<float> scales_of_band(std::span<const float> values, uint64_t columns,
                                  const std::string& name) {
  std::vector<float> scales((columns + kBlock - 1) / kBlock);
  bool all_finite = true;
  for (uint64_t row = 0; row * columns < values.size(); ++row) {
    for (uint64_t block = 0; block < scales.size(); ++block) {
      const uint64_t first = block * kBlock;
      const auto part = values.subspan(row * columns + first, std::min(kBlock, columns - first));
      for (const float value : part) {
        all_finite &= std::isfinite(value);
        scales[block] = std::max(scales[block], std::abs(value));
      }
    }
  }
  MT_CHECK_INPUT(all_finite, name, " holds a number that is not finite: 8 bits have none");
  // Never zero, and no subnormal number, which other programs may take for one.
  for (float& scale : scales)
    scale = std::max(scale / kGreatest, std::numeric_limits<float>::min());
  return scales;
}

void quantise(std::span<const float> values, uint64_t first, std::span<const float> scales,
              std::span<std::byte> bits) {
  std::array<float, kBlock> scaled;
  for (uint64_t done = 0; done < values.size();) {
    const uint64_t column = first + done;
    const uint64_t count =
        std::min<uint64_t>((column / kBlock + 1) * kBlock - column, values.size() - done);
    const float scale = scales[column / kBlock];
    // A quotient may be rounded up beyond the greatest number.
    for (uint64_t i = 0; i < count; ++i)
      scaled[i] = std::clamp(values[done + i] / scale, -kGreatest, kGreatest);
    narrow(std::span(scaled).first(count), SafetensorsDtype::kF8E4M3, bits.subspan(done, count));
    done += count;
  }
}

}  // namespace moetron
