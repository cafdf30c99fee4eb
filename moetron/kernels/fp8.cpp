#include "moetron/kernels/fp8.h"

#include <limits>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/fp8_quantise.h"
#endif

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

constexpr double kSmallestScale = std::numeric_limits<float>::min();

at::Tensor scales_of(const at::Tensor& largest, at::ScalarType dtype) {
  // Of a number a GPU would multiply by the reciprocal, which gives other bits.
  const at::Tensor most = at::full({}, largest_of(dtype), largest.options());
  const at::Tensor scales = rounded_up_to_power(largest.div(most).clamp_min(kSmallestScale));
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

// fp32 [rows, columns] in memory whose rows begin at multiples of 16 bytes.
at::Tensor empty_scales(int64_t rows, int64_t columns, const at::TensorOptions& options) {
  const int64_t aligned = (columns + 3) / 4 * 4;
  return at::empty({rows, aligned}, options.dtype(at::kFloat)).narrow(1, 0, columns);
}

at::Tensor with_aligned_rows(const at::Tensor& scales) {
  at::Tensor result = empty_scales(scales.size(0), scales.size(1), scales.options());
  return result.copy_(scales);
}

// Enough padded rows for any division of `rows` into groups.
int64_t num_padded_rows(int64_t rows, int64_t num_groups) {
  return num_fp8_tiles(rows + (num_groups - 1) * (kFp8Tile - 1)) * kFp8Tile;
}

#ifdef MOETRON_CUDA
bool has_kernel(const at::Tensor& x, at::ScalarType dtype, int64_t multiple) {
  return is_gpu_bf16(x) && dtype == at::kFloat8_e4m3fn && x.is_contiguous() &&
         has_aligned_rows(x, x.size(-1)) && x.size(-1) % multiple == 0 && x.numel() > 0;
}

Fp8Rows rows_by_kernel(const at::Tensor& x) {
  const int64_t rows = x.size(0), size = x.size(1);
  const Fp8Rows result = empty_fp8_rows(rows, size, at::kFloat8_e4m3fn, x.device());
  launch_fp8_rows({.x = x.const_data_ptr(),
                   .output = {.values = result.values.data_ptr(),
                              .scales = result.scales.mutable_data_ptr<float>(),
                              .scale_stride = result.scales.stride(0)},
                   .rows = rows,
                   .size = static_cast<int>(size)},
                  current_stream(x));
  return result;
}

Fp8Weight weight_by_kernel(const at::Tensor& weight) {
  const int64_t groups = weight.dim() == 3 ? weight.size(0) : 1;
  const auto blocks_of = [&](int64_t rows, int64_t columns) -> Fp8Blocks {
    std::vector<int64_t> values = {rows, columns};
    std::vector<int64_t> scales = {num_fp8_tiles(rows), num_fp8_tiles(columns)};
    if (weight.dim() == 3) {
      values.insert(values.begin(), groups);
      scales.insert(scales.begin(), groups);
    }
    return {.values = at::empty(values, weight.options().dtype(at::kFloat8_e4m3fn)),
            .scales = at::empty(scales, weight.options().dtype(at::kFloat))};
  };
  const int64_t out = weight.size(-2), in = weight.size(-1);
  const Fp8Weight result{.blocks = blocks_of(out, in), .turned = blocks_of(in, out)};
  launch_fp8_blocks({.weight = weight.const_data_ptr(),
                     .values = result.blocks.values.data_ptr(),
                     .scales = result.blocks.scales.mutable_data_ptr<float>(),
                     .turned_values = result.turned.values.data_ptr(),
                     .turned_scales = result.turned.scales.mutable_data_ptr<float>(),
                     .groups = static_cast<int>(groups),
                     .out = static_cast<int>(out),
                     .in = static_cast<int>(in)},
                    current_stream(weight));
  return result;
}

bool has_columns_kernel(const Fp8Rows& x) {
  return x.values.is_cuda() && x.values.scalar_type() == at::kFloat8_e4m3fn &&
         x.values.is_contiguous() && has_aligned_rows(x.values, x.values.size(1)) &&
         x.values.numel() > 0;
}

Fp8Columns columns_by_kernel(const Fp8Rows& x, const at::Tensor& ends) {
  const int64_t rows = x.values.size(0), size = x.values.size(1);
  const int64_t groups = ends.defined() ? ends.numel() : 1;
  const int64_t padded_rows = num_padded_rows(rows, groups);
  const Fp8Columns result{
      .blocks = {.values = at::empty({size, padded_rows}, x.values.options()),
                 .scales =
                     at::empty({num_fp8_tiles(size), padded_rows / kFp8Tile}, x.scales.options())},
      .ends = at::empty({groups}, x.scales.options().dtype(at::kInt))};
  launch_fp8_columns({.values = x.values.const_data_ptr(),
                      .scales = x.scales.const_data_ptr<float>(),
                      .scale_stride = x.scales.stride(0),
                      .ends = ends.defined() ? ends.const_data_ptr<int32_t>() : nullptr,
                      .turned_values = result.blocks.values.data_ptr(),
                      .turned_scales = result.blocks.scales.mutable_data_ptr<float>(),
                      .turned_ends = result.ends.mutable_data_ptr<int32_t>(),
                      .groups = static_cast<int>(groups),
                      .rows = rows,
                      .padded_rows = padded_rows,
                      .size = static_cast<int>(size)},
                     current_stream(x.scales));
  return result;
}
#endif

// Which row each padded row is; the number of rows, behind the last of a group.
struct PaddedRows {
  at::Tensor sources;  // [padded rows]
  at::Tensor ends;     // int32 [groups]
};
PaddedRows pad_groups(int64_t rows, const at::Tensor& ends) {
  const int64_t num_groups = ends.size(0);
  const at::Tensor all_ends = ends.to(at::kLong);
  const at::Tensor firsts = at::constant_pad_nd(all_ends, {1, 0}).narrow(0, 0, num_groups);
  const at::Tensor tiles =
      (all_ends - firsts + (kFp8Tile - 1)).div(kFp8Tile, /*rounding_mode=*/"floor");
  const at::Tensor padded_ends = tiles.mul(kFp8Tile).cumsum(0);
  const at::Tensor padded_firsts = padded_ends - tiles.mul(kFp8Tile);
  const at::Tensor places = at::arange(num_padded_rows(rows, num_groups), all_ends.options());
  const at::Tensor groups =
      at::searchsorted(padded_ends, places, /*out_int32=*/false, /*right=*/true)
          .clamp_max(num_groups - 1);
  const at::Tensor row = places - padded_firsts.index_select(0, groups) +
                         firsts.index_select(0, groups);  // [padded rows]
  return {.sources = at::where(row.lt(all_ends.index_select(0, groups)), row,
                               at::scalar_tensor(rows, row.options())),
          .ends = padded_ends.to(at::kInt)};
}

}  // namespace

Fp8Rows empty_fp8_rows(int64_t rows, int64_t size, at::ScalarType dtype, c10::Device device) {
  const auto options = at::TensorOptions(device);
  return {.values = at::empty({rows, size}, options.dtype(dtype)),
          .scales = empty_scales(num_fp8_tiles(size), rows, options)};
}

at::Tensor scales_by_row(const Fp8Rows& x) {
  // Of one tile the transposed counts as contiguous, whatever its strides.
  return x.scales.t().clone(at::MemoryFormat::Contiguous);
}

Fp8Rows fp8_rows(const at::Tensor& values, const at::Tensor& scales_by_row) {
  return {.values = values, .scales = with_aligned_rows(scales_by_row.t())};
}

at::Tensor spread_over_rows(const at::Tensor& scales, int64_t size) {
  return scales.t().repeat_interleave(kFp8Tile, 1).narrow(1, 0, size);
}

Fp8Rows quantise_rows(const at::Tensor& x, at::ScalarType dtype) {
  MT_CHECK(x.dim() == 2, "[", x.sizes(), "] is no matrix");
#ifdef MOETRON_CUDA
  if (has_kernel(x, dtype, 8)) return rows_by_kernel(x);
#endif
  const int64_t rows = x.size(0), size = x.size(1), tiles = num_fp8_tiles(size);
  const at::Tensor numbers = x.to(at::kFloat);
  const at::Tensor largest =
      padded(numbers, /*both_dims=*/false).view({rows, tiles, kFp8Tile}).abs().amax({2});
  const at::Tensor scales = scales_of(largest, dtype).t();  // [tiles, rows]
  return {.values = (numbers / spread_over_rows(scales, size)).to(dtype),
          .scales = with_aligned_rows(scales)};
}

Fp8Columns columns_of(const Fp8Rows& x, const at::Tensor& ends) {
#ifdef MOETRON_CUDA
  if (has_columns_kernel(x)) return columns_by_kernel(x, ends);
#endif
  const int64_t rows = x.values.size(0), size = x.values.size(1);
  const at::Tensor all_ends =
      ends.defined() ? ends : at::full({1}, rows, x.scales.options().dtype(at::kInt));
  const PaddedRows padded_rows = pad_groups(rows, all_ends);
  // [tiles, padded rows], zero where there is no row
  const at::Tensor scales =
      at::constant_pad_nd(x.scales, {0, 1}).index_select(1, padded_rows.sources);
  const at::Tensor largest = scales.unflatten(1, {-1, kFp8Tile})
                                 .amax({2})
                                 .clamp_min(kSmallestScale);  // [tiles, padded rows / 128]
  const at::Tensor factors = scales / largest.repeat_interleave(kFp8Tile, 1);
  const at::Tensor bytes = at::constant_pad_nd(x.values.view(at::kByte), {0, 0, 0, 1})
                               .index_select(0, padded_rows.sources);
  const at::Tensor numbers =
      bytes.view(x.values.scalar_type()).to(at::kFloat) * spread_over_rows(factors, size);
  return {.blocks = {.values = numbers.t().to(x.values.scalar_type()).contiguous(),
                     .scales = largest.contiguous()},
          .ends = padded_rows.ends};
}

Fp8Blocks quantise_blocks(const at::Tensor& weight, at::ScalarType dtype) {
  MT_CHECK(weight.dim() == 2 || weight.dim() == 3, "[", weight.sizes(), "] is no weight");
  const int64_t out = weight.size(-2), in = weight.size(-1);
  const at::Tensor numbers = weight.to(at::kFloat);
  const at::Tensor largest =
      padded(numbers, /*both_dims=*/true)
          .view({-1, num_fp8_tiles(out), kFp8Tile, num_fp8_tiles(in), kFp8Tile})
          .abs()
          .amax({2, 4});  // [groups, blocks of out, blocks of in]
  at::Tensor scales = scales_of(largest, dtype);
  if (weight.dim() == 2) scales = scales[0];
  return {.values = (numbers / spread(scales, out, in)).to(dtype), .scales = scales};
}

Fp8Weight quantise_weight(const at::Tensor& weight, at::ScalarType dtype) {
#ifdef MOETRON_CUDA
  if (has_kernel(weight, dtype, 16) && weight.size(-2) % 16 == 0) return weight_by_kernel(weight);
#endif
  Fp8Blocks blocks = quantise_blocks(weight, dtype);
  Fp8Blocks turned = transposed(blocks);
  return {std::move(blocks), std::move(turned)};
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
