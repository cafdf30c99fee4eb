#include "moetron/kernels/fp8.h"

#include <limits>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

double largest_of(at::ScalarType dtype) {
  MT_CHECK(dtype == at::kFloat8_e4m3fn || dtype == at::kFloat8_e5m2, dtype,
           " is no number of 8 bits");
  return dtype == at::kFloat8_e4m3fn ? 448 : 57344;
}

// The power of two at or above x, for normal x.
at::Tensor rounded_up_to_power(const at::Tensor& x) {
  const auto [mantissa, exponent] = at::frexp(x);  // mantissa in [0.5, 1)
  const at::Tensor up = at::where(mantissa.eq(0.5), exponent - 1, exponent);
  return at::ldexp(at::ones_like(x), up);
}

at::Tensor scales_of(const at::Tensor& largest, const Fp8Recipe& recipe) {
  // Of a number a GPU would multiply by the reciprocal, which gives other bits.
  const at::Tensor most = at::full({}, largest_of(recipe.dtype), largest.options());
  at::Tensor scales = largest.div(most).clamp_min(std::numeric_limits<float>::min());
  if (recipe.power_of_two) scales = rounded_up_to_power(scales);
  return at::where(largest.isfinite(), scales, std::numeric_limits<float>::quiet_NaN());
}

// Zeros behind the last dims, up to multiples of 128.
at::Tensor padded(const at::Tensor& x, bool both_dims) {
  const int64_t columns = x.size(-1), rows = x.size(-2);
  return at::constant_pad_nd(x, {0, num_fp8_tiles(columns) * kFp8Tile - columns, 0,
                                 both_dims ? num_fp8_tiles(rows) * kFp8Tile - rows : 0});
}

// scales [..., blocks, blocks] -> one for each number [..., rows, columns]
at::Tensor spread(const at::Tensor& scales, int64_t rows, int64_t columns) {
  return scales.repeat_interleave(kFp8Tile, -2)
      .narrow(-2, 0, rows)
      .repeat_interleave(kFp8Tile, -1)
      .narrow(-1, 0, columns);
}

// In memory whose rows begin at multiples of 16 bytes.
at::Tensor with_aligned_rows(const at::Tensor& scales) {
  const int64_t rows = scales.size(1), aligned = (rows + 3) / 4 * 4;
  const at::Tensor memory = at::zeros({scales.size(0), aligned}, scales.options());
  at::Tensor result = memory.narrow(1, 0, rows);
  return result.copy_(scales);
}

}  // namespace

at::Tensor spread_over_rows(const at::Tensor& scales, int64_t size) {
  return scales.t().repeat_interleave(kFp8Tile, 1).narrow(1, 0, size);
}

Fp8Rows quantise_rows(const at::Tensor& x, const Fp8Recipe& recipe) {
  MT_CHECK(x.dim() == 2, "[", x.sizes(), "] is no matrix");
  const int64_t rows = x.size(0), size = x.size(1), tiles = num_fp8_tiles(size);
  const at::Tensor numbers = x.to(at::kFloat);
  const at::Tensor largest =
      padded(numbers, /*both_dims=*/false).view({rows, tiles, kFp8Tile}).abs().amax({2});
  const at::Tensor scales = scales_of(largest, recipe).t();  // [tiles, rows]
  return {.values = (numbers / spread_over_rows(scales, size)).to(recipe.dtype),
          .scales = with_aligned_rows(scales)};
}

Fp8Rows quantise_columns(const at::Tensor& x, const Fp8Recipe& recipe) {
  return quantise_rows(x.t().contiguous(), recipe);
}

Fp8Columns quantise_columns_of_groups(const at::Tensor& x, const at::Tensor& ends,
                                      const Fp8Recipe& recipe) {
  const int64_t rows = x.size(0), num_groups = ends.size(0);
  const int64_t most = num_fp8_tiles(rows + num_groups * (kFp8Tile - 1)) * kFp8Tile;
  const at::Tensor all_ends = ends.to(at::kLong);
  const at::Tensor firsts = at::constant_pad_nd(all_ends, {1, 0}).narrow(0, 0, num_groups);
  const at::Tensor tiles =
      (all_ends - firsts + (kFp8Tile - 1)).div(kFp8Tile, /*rounding_mode=*/"floor");
  const at::Tensor padded_ends = tiles.mul(kFp8Tile).cumsum(0);
  const at::Tensor padded_firsts = padded_ends - tiles.mul(kFp8Tile);
  // Which row of x each padded row is; `rows`, behind the last, stands for zeros.
  const at::Tensor places = at::arange(most, all_ends.options());
  const at::Tensor groups =
      at::searchsorted(padded_ends, places, /*out_int32=*/false, /*right=*/true)
          .clamp_max(num_groups - 1);
  const at::Tensor row = places - padded_firsts.index_select(0, groups) +
                         firsts.index_select(0, groups);  // [padded rows]
  const at::Tensor source = at::where(row.lt(all_ends.index_select(0, groups)), row,
                                      at::scalar_tensor(rows, row.options()));
  const at::Tensor with_zeros = at::constant_pad_nd(x, {0, 0, 0, 1});
  return {.rows = quantise_columns(with_zeros.index_select(0, source), recipe),
          .ends = padded_ends.to(at::kInt)};
}

Fp8Blocks quantise_blocks(const at::Tensor& weight, const Fp8Recipe& recipe) {
  MT_CHECK(weight.dim() == 2 || weight.dim() == 3, "[", weight.sizes(), "] is no weight");
  const int64_t out = weight.size(-2), in = weight.size(-1);
  const at::Tensor numbers = weight.to(at::kFloat);
  const at::Tensor largest =
      padded(numbers, /*both_dims=*/true)
          .view({-1, num_fp8_tiles(out), kFp8Tile, num_fp8_tiles(in), kFp8Tile})
          .abs()
          .amax({2, 4});  // [groups, blocks of out, blocks of in]
  at::Tensor scales = scales_of(largest, recipe);
  if (weight.dim() == 2) scales = scales[0];
  return {.values = (numbers / spread(scales, out, in)).to(recipe.dtype), .scales = scales};
}

Fp8Blocks transposed(const Fp8Blocks& weight) {
  return {.values = weight.values.transpose(-2, -1).contiguous(),
          .scales = weight.scales.transpose(-2, -1).contiguous()};
}

at::Tensor dequantise(const Fp8Rows& x) {
  return x.values.to(at::kFloat) * spread_over_rows(x.scales, x.values.size(1));
}

at::Tensor dequantise(const Fp8Blocks& weight) {
  return weight.values.to(at::kFloat) *
         spread(weight.scales, weight.values.size(-2), weight.values.size(-1));
}

}  // namespace moetron
