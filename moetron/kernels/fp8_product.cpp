#include "moetron/kernels/fp8_product.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/blas.h"
#include "moetron/kernels/cuda/fp8_product.h"
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/device.h"
#endif

namespace moetron {
namespace {

// a [m, k], b [n, k], each with scales [tiles, m] and [tiles, n] -> fp32 [m, n].
at::Tensor scaled_sums(const at::Tensor& a, const at::Tensor& a_scales, const at::Tensor& b,
                       const at::Tensor& b_scales) {
  at::Tensor total = at::zeros({a.size(0), b.size(0)}, a_scales.options());
  for (int64_t tile = 0; tile < num_fp8_tiles(a.size(1)); ++tile) {
    const int64_t first = tile * kFp8Tile, size = std::min(kFp8Tile, a.size(1) - first);
    const at::Tensor sums =
        a.narrow(1, first, size).to(at::kFloat).matmul(b.narrow(1, first, size).to(at::kFloat).t());
    total.add_(sums.mul(a_scales[tile].unsqueeze(1) * b_scales[tile].unsqueeze(0)));
  }
  return total;
}

// [tiles of columns, rows]: the same scales, one for each row.
at::Tensor scales_of_rows(const Fp8Blocks& matrix) {
  return spread_over_rows(matrix.scales, matrix.values.size(0)).contiguous();
}

at::Tensor product_by_operators(const Fp8Rows& x, const Fp8Blocks& weight, at::ScalarType dtype) {
  return scaled_sums(x.values, x.scales, weight.values, scales_of_rows(weight)).to(dtype);
}

at::Tensor weight_grad_by_operators(const Fp8Blocks& d_y, const Fp8Blocks& x) {
  return scaled_sums(d_y.values, scales_of_rows(d_y), x.values, scales_of_rows(x));
}

Fp8Rows part_of(const Fp8Rows& x, int64_t first, int64_t count) {
  return {x.values.narrow(0, first, count), x.scales.narrow(1, first, count)};
}

void write(const at::Tensor& sum, const at::Tensor& value, bool adds) {
  at::Tensor target = sum;
  adds ? target.add_(value) : target.copy_(value);
}

void check_product(const Fp8Rows& x, const at::Tensor& weight) {
  MT_CHECK(x.values.size(1) == weight.size(-1), "rows [", x.values.sizes(),
           "] have no product with the weight [", weight.sizes(), "]");
}

void check_weight_grad(const at::Tensor& sum, const Fp8Blocks& d_y, const Fp8Blocks& x) {
  MT_CHECK(d_y.values.size(1) == x.values.size(1) && sum.size(-2) == d_y.values.size(0) &&
               sum.size(-1) == x.values.size(0) && sum.scalar_type() == at::kFloat &&
               sum.is_contiguous(),
           "columns [", d_y.values.sizes(), "] and [", x.values.sizes(),
           "] have no weight gradient [", sum.sizes(), "] ", sum.scalar_type());
}

#ifdef MOETRON_CUDA
Fp8Matrix matrix_of(const at::Tensor& values, const at::Tensor& scales) {
  MT_CHECK(values.scalar_type() == at::kFloat8_e4m3fn && values.is_contiguous() &&
               has_aligned_rows(values, values.size(-1)) && values.is_cuda() && scales.is_cuda() &&
               scales.scalar_type() == at::kFloat && scales.stride(-1) == 1,
           "a product on a GPU takes E4M3 whose rows begin at multiples of 16 bytes, not [",
           values.sizes(), "] ", values.scalar_type());
  return {.values = values.const_data_ptr(),
          .scales = scales.const_data_ptr<float>(),
          .scale_stride = scales.stride(-2)};
}

Fp8Gemm gemm_of(const at::Tensor& result, const Fp8Matrix& a, const Fp8Matrix& b,
                const at::Tensor& ends, int64_t k) {
  MT_CHECK(result.size(-1) % 8 == 0, "a product on a GPU has columns by eight, not [",
           result.sizes(), "]");
  return {.a = a,
          .b = b,
          .result = result.data_ptr(),
          .ends = ends.defined() ? ends.const_data_ptr<int32_t>() : nullptr,
          .num_groups = ends.defined() ? static_cast<int>(ends.numel()) : 1,
          .m = static_cast<int>(result.size(-2)),
          .n = static_cast<int>(result.size(-1)),
          .k = static_cast<int>(k)};
}

at::Tensor product_on_gpu(const Fp8Rows& x, const Fp8Blocks& weight, const at::Tensor& ends,
                          at::ScalarType dtype) {
  MT_CHECK(dtype == at::kBFloat16, "a product on a GPU gives bf16, not ", dtype);
  const at::Tensor y = at::empty({x.values.size(0), weight.values.size(-2)},
                                 x.values.options().dtype(at::kBFloat16));
  const Fp8Matrix a = matrix_of(x.values, x.scales);
  const Fp8Matrix b = matrix_of(weight.values, weight.scales);
  MT_CHECK(weight.scales.is_contiguous(), "scales of blocks must be contiguous");
  if (y.numel() == 0) return y;
  const Fp8Factor first{x.values, x.scales};
  const Fp8Factor second{weight.values, weight.scales};
  if (!ends.defined() && has_fp8_blas(first, second)) {
    fp8_blas_product(y, first, second, /*adds=*/false);
  } else {
    launch_fp8_product(gemm_of(y, a, b, ends, x.values.size(1)), current_stream(y));
  }
  return y;
}

void weight_grad_on_gpu(const at::Tensor& sum, const Fp8Blocks& d_y, const Fp8Blocks& x,
                        const at::Tensor& ends, bool adds) {
  if (!ends.defined()) {
    const at::Tensor scales = scales_of_rows(d_y);  // as cuBLASLt wants those of one factor
    const Fp8Factor first{d_y.values, scales}, second{x.values, x.scales};
    if (has_fp8_blas(first, second)) return fp8_blas_product(sum, first, second, adds);
  }
  const Fp8Matrix a = matrix_of(d_y.values, d_y.scales), b = matrix_of(x.values, x.scales);
  Fp8Gemm gemm = gemm_of(sum, a, b, ends, x.values.size(1));
  gemm.adds = adds;
  launch_fp8_weight_grad(gemm, current_stream(sum));
}
#endif

}  // namespace

bool has_fp8_products(c10::Device device) {
  if (!device.is_cuda()) return true;
#ifdef MOETRON_CUDA
  int major = 0, index = device.has_index() ? device.index() : 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index),
             "cudaDeviceGetAttribute");
  return major == 9;
#else
  return false;
#endif
}

at::Tensor fp8_product(const Fp8Rows& x, const Fp8Blocks& weight, at::ScalarType dtype) {
  check_product(x, weight.values);
#ifdef MOETRON_CUDA
  if (x.values.is_cuda()) return product_on_gpu(x, weight, {}, dtype);
#endif
  return product_by_operators(x, weight, dtype);
}

at::Tensor fp8_grouped_rows_product(const Fp8Rows& x, const Fp8Blocks& weight,
                                    const at::Tensor& ends, at::ScalarType dtype) {
  check_product(x, weight.values);
  MT_CHECK(weight.values.dim() == 3 && ends.scalar_type() == at::kInt &&
               ends.numel() == weight.values.size(0),
           "weights [", weight.values.sizes(), "] are not those of ", ends.numel(), " groups");
#ifdef MOETRON_CUDA
  if (x.values.is_cuda()) return product_on_gpu(x, weight, ends, dtype);
#endif
  const at::Tensor y =
      at::empty({x.values.size(0), weight.values.size(1)}, x.scales.options().dtype(dtype));
  int64_t first = 0;
  for (int64_t group = 0; group < ends.numel(); ++group) {
    const int64_t end = ends[group].item<int32_t>();
    y.narrow(0, first, end - first)
        .copy_(product_by_operators(part_of(x, first, end - first),
                                    {weight.values[group], weight.scales[group]}, dtype));
    first = end;
  }
  return y;
}

void fp8_weight_grad_product(const at::Tensor& sum, const Fp8Blocks& d_y, const Fp8Blocks& x,
                             bool adds) {
  check_weight_grad(sum, d_y, x);
#ifdef MOETRON_CUDA
  if (x.values.is_cuda() && x.values.size(1) > 0) return weight_grad_on_gpu(sum, d_y, x, {}, adds);
#endif
  write(sum, weight_grad_by_operators(d_y, x), adds);
}

void fp8_grouped_weight_grad_product(const at::Tensor& sum, const Fp8Columns& d_y,
                                     const Fp8Columns& x, bool adds) {
  check_weight_grad(sum, d_y.blocks, x.blocks);
  MT_CHECK(sum.dim() == 3 && sum.size(0) == x.ends.numel(), "the sums [", sum.sizes(),
           "] are not those of ", x.ends.numel(), " groups");
#ifdef MOETRON_CUDA
  if (x.blocks.values.is_cuda()) {
    return weight_grad_on_gpu(sum, d_y.blocks, x.blocks, x.ends, adds);
  }
#endif
  int64_t first = 0;
  const auto columns = [&](const Fp8Blocks& all, int64_t end) -> Fp8Blocks {
    return {all.values.narrow(1, first, end - first),
            all.scales.narrow(1, first / kFp8Tile, (end - first) / kFp8Tile)};
  };
  for (int64_t group = 0; group < x.ends.numel(); ++group) {
    const int64_t end = x.ends[group].item<int32_t>();
    write(sum[group], weight_grad_by_operators(columns(d_y.blocks, end), columns(x.blocks, end)),
          adds);
    first = end;
  }
}

}  // namespace moetron
