// Matrices in 8 bits (F8_E4M3) with an fp32 scale for every block of 128 x 128, the last row and
// column of blocks smaller: how DeepSeek-V3 and Qwen3 are released. Beside NAME lies NAME_scale_inv
// [ceil(rows / 128), ceil(columns / 128)]; an element is its 8 bits times the scale of its block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/formats/safetensors.h"

namespace moetron {

inline constexpr int64_t kScaleBlock = 128;
inline constexpr std::string_view kScaleSuffix = "_scale_inv";

// The shape of a matrix's scales; of other ranks it is empty.
std::vector<int64_t> scale_shape(std::span<const int64_t> shape);

// InputError, which begins with `place`, unless `weight` is a matrix in 8 bits, and `scale` F32,
// BF16 or F16 of the shape that it needs.
void check_scale(const SafetensorsTensor& weight, const SafetensorsTensor& scale,
                 const std::string& place);

// The scales of one matrix.
class BlockScales {
 public:
  // `bytes`: those of `scale`. InputError as check_scale().
  BlockScales(const SafetensorsTensor& weight, const SafetensorsTensor& scale,
              std::span<const std::byte> bytes, const std::string& place);

  // out[i] = element begin + i of the matrix, row-major, from its 8 bits.
  void dequantise(uint64_t begin, std::span<const std::byte> bits, std::span<float> out) const;

 private:
  uint64_t columns_ = 0;
  uint64_t blocks_in_row_ = 0;
  std::vector<float> scales_;
};

// The scale of each block in a row of blocks [rows, columns], rows <= 128: the greatest magnitude
// over 448, so that it just fits. InputError, which begins with `name`, where an element is not
// finite.
std::vector<float> scales_of_band(std::span<const float> values, uint64_t columns,
                                  const std::string& name);

// Divides elements of one row by the scales of their blocks and rounds. `first`: column of the
// first.
void quantise(std::span<const float> values, uint64_t first, std::span<const float> scales,
              std::span<std::byte> bits);

}  // namespace moetron
