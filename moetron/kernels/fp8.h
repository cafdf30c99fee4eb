// Values in 8 bits with scales, as DeepSeek-V3 trains with them (arXiv 2412.19437, 3.3): 128
// numbers along what a product sums share one scale, and so do blocks of 128 x 128 of a weight. A
// value is its number of 8 bits times its scale.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

constexpr int64_t kFp8Tile = 128;  // numbers that share a scale; the last of a row may be fewer
constexpr int64_t num_fp8_tiles(int64_t size) {
  return (size + kFp8Tile - 1) / kFp8Tile;
}

struct Fp8Recipe {
  at::ScalarType dtype = at::kFloat8_e4m3fn;  // or kFloat8_e5m2
  bool power_of_two = false;                  // scales rounded up to one
};

// A matrix with a scale for each 128 along its rows: activations and the gradients of outputs.
struct Fp8Rows {
  at::Tensor values;  // [rows, size]
  // fp32 [tiles, rows], row by row at multiples of 16 bytes; tiles = size / 128, rounded up
  at::Tensor scales;
};

// Weights with a scale for each 128 x 128, which fit their transposed as well.
struct Fp8Blocks {
  at::Tensor values;  // [out, in] or [groups, out, in]
  at::Tensor scales;  // fp32 [blocks of out, blocks of in], or one such matrix a group
};

// Each scale takes the largest number of its tile or block to the largest of 8 bits; it is at least
// the smallest normal number of fp32, which is also that of zeros alone. One number that is not
// finite makes the scale NaN, and with it all that the tile or block goes into. x: fp32 or bf16.
Fp8Rows quantise_rows(const at::Tensor& x, const Fp8Recipe& recipe);  // x [rows, size]
Fp8Blocks quantise_blocks(const at::Tensor& weight, const Fp8Recipe& recipe);

// scales [tiles, rows] -> [rows, size]: one for each number.
at::Tensor spread_over_rows(const at::Tensor& scales, int64_t size);

// Of x [rows, size], with a scale for each 128 rows, as the rows of its transposed: what a weight
// gradient sums over. values [size, rows].
Fp8Rows quantise_columns(const at::Tensor& x, const Fp8Recipe& recipe);

// As quantise_columns for rows in groups: each group's begin at a multiple of 128, with zeros
// behind its last, so that no scale belongs to two.
struct Fp8Columns {
  Fp8Rows rows;     // values [size, padded rows]: enough of them for any division into groups
  at::Tensor ends;  // int32 [groups], where each group's padded rows end
};
// ends [groups] int32, where each group's rows of x end. The host is not waited for.
Fp8Columns quantise_columns_of_groups(const at::Tensor& x, const at::Tensor& ends,
                                      const Fp8Recipe& recipe);

// The same numbers with the last two dims exchanged; exact.
Fp8Blocks transposed(const Fp8Blocks& weight);

// The values in fp32.
at::Tensor dequantise(const Fp8Rows& x);
at::Tensor dequantise(const Fp8Blocks& weight);

}  // namespace moetron
