#include "moetron/kernels/blas.h"

#include <memory>

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAGuard.h>

#include "moetron/base/error.h"
#include "moetron/kernels/cuda/blas_product.h"
#include "moetron/kernels/kernel_caches.h"
#include "moetron/kernels/timed_choices.h"

namespace moetron {
namespace {

constexpr int kTriedAlgorithms = 8;

// Of the current GPU.
std::shared_ptr<const BlasProduct> make_product(const BlasShape& shape, BlasScales scales) {
  const bool tries = !at::globalContext().deterministicAlgorithms();
  return std::make_shared<const BlasProduct>(at::cuda::getCurrentCUDABlasLtHandle(), shape,
                                             tries ? kTriedAlgorithms : 1, scales);
}

int64_t row_stride(const at::Tensor& x) {
  return x.size(0) > 1 ? x.stride(0) : x.size(1);
}

// Of the first element, up to the 256 bytes that cuBLASLt asks about.
int64_t alignment(const at::Tensor& x) {
  const auto address = reinterpret_cast<uintptr_t>(x.const_data_ptr()) | 256;
  return static_cast<int64_t>(address & -address);
}

at::Tensor with_plain_rows(const at::Tensor& x) {
  const bool plain = (x.size(1) == 1 || x.stride(1) == 1) && row_stride(x) >= x.size(1);
  return plain ? x : x.clone(at::MemoryFormat::Contiguous);
}

// first, second: what `shape` calls a and b.
void run_fastest(const BlasShape& shape, const at::Tensor& first, const at::Tensor& second,
                 BlasScales scales, const at::Tensor& d, bool adds) {
  auto& choices = KernelCaches::of_process().of<TimedChoices<BlasShape, BlasProduct>>();
  const cudaStream_t stream = current_stream(d);
  choices.run(
      shape, d, /*may_try=*/!adds, [&] { return make_product(shape, scales); },
      [&](const BlasProduct& product, int algorithm, void* workspace) {
        product.run(algorithm, first.const_data_ptr(), second.const_data_ptr(), scales,
                    d.data_ptr(), adds, workspace, stream);
      });
}

}  // namespace

void blas_product(const at::Tensor& d, BlasFactor a, BlasFactor b, bool adds) {
  const c10::cuda::CUDAGuard guard(d.device());
  const at::Tensor first = with_plain_rows(a.matrix), second = with_plain_rows(b.matrix);
  const BlasShape shape{.device = d.get_device(),
                        .m = d.size(0),
                        .n = d.size(1),
                        .k = first.size(a.transposed ? 0 : 1),
                        .a_transposed = a.transposed,
                        .b_transposed = b.transposed,
                        .fp32_result = d.scalar_type() == at::kFloat,
                        .a_stride = row_stride(first),
                        .b_stride = row_stride(second),
                        .d_stride = row_stride(d),
                        .a_alignment = alignment(first),
                        .b_alignment = alignment(second),
                        .d_alignment = alignment(d)};
  MT_CHECK(first.size(a.transposed ? 1 : 0) == shape.m &&
               second.size(b.transposed ? 1 : 0) == shape.k &&
               second.size(b.transposed ? 0 : 1) == shape.n,
           "factors [", first.sizes(), "], [", second.sizes(), "] and result [", d.sizes(),
           "] do not fit");
  MT_CHECK(d.stride(1) == 1 || shape.n == 1, "the result's rows must be contiguous");
  run_fastest(shape, first, second, {}, d, adds);
}

bool has_fp8_blas(const Fp8Factor& a, const Fp8Factor& b) {
  const auto takes = [](const Fp8Factor& factor) {
    if (factor.values.scalar_type() != at::kFloat8_e4m3fn || factor.values.dim() != 2) return false;
    // Its layouts of scales: rows without gaps, or blocks in rows of whole 16 bytes.
    return factor.scales.is_contiguous() && factor.scales.size(1) % 4 == 0 &&
           factor.values.size(1) % 128 == 0 && alignment(factor.values) >= 16 &&
           alignment(factor.scales) >= 16;
  };
  return takes(a) && takes(b);
}

void fp8_blas_product(const at::Tensor& d, const Fp8Factor& a, const Fp8Factor& b, bool adds) {
  const c10::cuda::CUDAGuard guard(d.device());
  const BlasShape shape{.device = d.get_device(),
                        .factors = BlasFactors::kFp8,
                        .m = d.size(0),
                        .n = d.size(1),
                        .k = a.values.size(1),
                        .b_transposed = true,
                        .fp32_result = d.scalar_type() == at::kFloat,
                        .a_stride = a.values.size(1),
                        .b_stride = a.values.size(1),
                        .d_stride = row_stride(d),
                        .a_alignment = alignment(a.values),
                        .b_alignment = alignment(b.values),
                        .d_alignment = alignment(d)};
  const BlasScales scales{.a = a.scales.const_data_ptr<float>(),
                          .b = b.scales.const_data_ptr<float>()};
  run_fastest(shape, a.values, b.values, scales, d, adds);
}

}  // namespace moetron
