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

// Each scale is the smallest power of two that takes the largest number of its tile or block to at
// most the largest of 8 bits, and at least the smallest normal number of fp32, which is also that
// of zeros alone. One number that is not finite makes the scale NaN, and with it all that the tile
// or block goes into. `dtype`: kFloat8_e4m3fn or kFloat8_e5m2. x: fp32 or bf16.
Fp8Rows quantise_rows(const at::Tensor& x, at::ScalarType dtype);  // x [rows, size]
Fp8Blocks quantise_blocks(const at::Tensor& weight, at::ScalarType dtype);

// Memory for such rows.
Fp8Rows empty_fp8_rows(int64_t rows, int64_t size, at::ScalarType dtype, c10::Device device);

// The scales of each row side by side, as they travel with it: [rows, tiles]; and back.
at::Tensor scales_by_row(const Fp8Rows& x);
Fp8Rows fp8_rows(const at::Tensor& values, const at::Tensor& scales_by_row);

// scales [tiles, rows] -> [rows, size]: one for each number.
at::Tensor spread_over_rows(const at::Tensor& scales, int64_t size);

// A weight for all of its products: blocks, and the same numbers with the last two dims exchanged.
struct Fp8Weight {
  Fp8Blocks blocks, turned;
};
Fp8Weight quantise_weight(const at::Tensor& weight, at::ScalarType dtype);
Fp8Blocks transposed(const Fp8Blocks& weight);  // exact

// The transposed of a matrix of rows, as a weight gradient sums over it. 128 of the rows share the
// scale of each of their tiles, which makes blocks of 128 x 128. Rows may be in groups: each
// group's begin at a multiple of 128, with zeros behind its last, so that no scale belongs to two.
struct Fp8Columns {
  Fp8Blocks blocks;  // values [size, padded rows]: enough of them for any division into groups
  at::Tensor ends;   // int32 [groups], where each group's padded rows end
};
// They take the largest of their scales (FP8-Flow-MoE, arXiv 2511.02302): what is not quantised
// twice loses nothing but what falls off below the smallest number of 8 bits. ends [groups] int32,
// where each group's rows of x end; undefined: one group, of all. The host is not waited for.
Fp8Columns columns_of(const Fp8Rows& x, const at::Tensor& ends = {});

// In which 8 bits a weight's three products have their factors.
struct Fp8Products {
  at::ScalarType values = at::kFloat8_e4m3fn;     // weights and activations
  at::ScalarType gradients = at::kFloat8_e4m3fn;  // of outputs
  bool weight_grad = true;                        // false: its factors are not quantised
};

// The values in fp32.
at::Tensor dequantise(const Fp8Rows& x);
at::Tensor dequantise(const Fp8Blocks& weight);

}  // namespace moetron
