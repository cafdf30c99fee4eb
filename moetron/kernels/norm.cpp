#include "moetron/kernels/norm.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/norm.h"
#endif

namespace moetron {
namespace {

RmsNormed aten_forward(const at::Tensor& sum, const at::Tensor& weight, double eps) {
  const at::Tensor wide = sum.to(at::kFloat);
  const at::Tensor inverse_rms = wide.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
  return {sum, wide.mul(inverse_rms).to(sum.dtype()).mul(weight), inverse_rms};
}

RmsNormGrads aten_backward(const at::Tensor& d_y, const at::Tensor& d_sum, const at::Tensor& x,
                           const at::Tensor& inverse_rms, const at::Tensor& weight) {
  const at::Tensor normed = x.to(at::kFloat).mul(inverse_rms), wide = d_y.to(at::kFloat);
  at::Tensor d_normed = wide.mul(weight.to(at::kFloat));
  const at::Tensor along = at::mul(d_normed, normed).mean(-1, /*keepdim=*/true);  // [..., 1]
  d_normed.sub_(normed.mul(along)).mul_(inverse_rms);
  const at::Tensor d_x = d_normed.to(x.dtype());
  const at::Tensor rounded = normed.to(x.dtype()).to(at::kFloat);
  return {d_sum.defined() ? d_x.add(d_sum) : d_x,
          wide.mul(rounded).reshape({-1, x.size(-1)}).sum(0, /*keepdim=*/true)};
}

#ifdef MOETRON_CUDA
bool has_kernel(const at::Tensor& x, const at::Tensor& weight, Operators operators) {
  return operators == Operators::kFastest && is_gpu_bf16(x) && is_gpu_bf16(weight) &&
         x.size(-1) % 8 == 0 && x.size(-1) <= kWidestNorm;
}

// [rows, size], each row at a multiple of 16 bytes: x's own memory where it lies so.
at::Tensor as_rows(const at::Tensor& x) {
  const at::Tensor rows = x.reshape({-1, x.size(-1)});
  const bool fits =
      rows.stride(1) == 1 && rows.stride(0) % 8 == 0 && has_aligned_rows(rows, rows.size(1));
  return fits ? rows : rows.clone(at::MemoryFormat::Contiguous);
}

std::vector<int64_t> statistics_shape(const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = 1;
  return shape;
}

RmsNormed kernel_forward(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                         double eps) {
  const at::Tensor rows = as_rows(x), delta_rows = delta.defined() ? as_rows(delta) : delta,
                   weights = as_rows(weight);
  RmsNormed out{.sum = delta.defined() ? at::empty(x.sizes(), x.options()) : x,
                .y = at::empty(x.sizes(), x.options()),
                .inverse_rms = at::empty(statistics_shape(x), x.options().dtype(at::kFloat))};
  if (x.numel() == 0) return out;
  launch_rms_norm_forward({.x = rows.const_data_ptr(),
                           .x_stride = rows.stride(0),
                           .delta = delta.defined() ? delta_rows.const_data_ptr() : nullptr,
                           .delta_stride = delta.defined() ? delta_rows.stride(0) : 0,
                           .weight = weights.const_data_ptr(),
                           .sum = delta.defined() ? out.sum.mutable_data_ptr() : nullptr,
                           .y = out.y.mutable_data_ptr(),
                           .inverse_rms = out.inverse_rms.mutable_data_ptr<float>(),
                           .rows = rows.size(0),
                           .size = static_cast<int>(rows.size(1)),
                           .eps = static_cast<float>(eps)},
                          current_stream(x));
  return out;
}

RmsNormGrads kernel_backward(const at::Tensor& d_y, const at::Tensor& d_sum, const at::Tensor& x,
                             const at::Tensor& inverse_rms, const at::Tensor& weight) {
  const at::Tensor rows = as_rows(x), d_rows = as_rows(d_y), weights = as_rows(weight),
                   d_sum_rows = d_sum.defined() ? as_rows(d_sum) : d_sum;
  const int64_t size = rows.size(1);
  MT_CHECK(inverse_rms.is_contiguous() && inverse_rms.numel() == rows.size(0),
           "inverse_rms of shape ", inverse_rms.sizes(), " for x of shape ", x.sizes());
  RmsNormGrads out{.d_x = at::empty(x.sizes(), x.options()),
                   .d_weight_parts = at::empty({rms_norm_parts(rows.size(0), size), size},
                                               x.options().dtype(at::kFloat))};
  if (x.numel() == 0) return out;
  launch_rms_norm_backward({.d_y = d_rows.const_data_ptr(),
                            .d_y_stride = d_rows.stride(0),
                            .d_sum = d_sum.defined() ? d_sum_rows.const_data_ptr() : nullptr,
                            .d_sum_stride = d_sum.defined() ? d_sum_rows.stride(0) : 0,
                            .x = rows.const_data_ptr(),
                            .x_stride = rows.stride(0),
                            .weight = weights.const_data_ptr(),
                            .inverse_rms = inverse_rms.const_data_ptr<float>(),
                            .d_x = out.d_x.mutable_data_ptr(),
                            .d_weight_parts = out.d_weight_parts.mutable_data_ptr<float>(),
                            .rows = rows.size(0),
                            .size = static_cast<int>(size)},
                           current_stream(x));
  return out;
}
#endif

}  // namespace

RmsNormed rms_norm_forward(const at::Tensor& x, const at::Tensor& delta, const at::Tensor& weight,
                           double eps, [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (has_kernel(x, weight, operators)) return kernel_forward(x, delta, weight, eps);
#endif
  return aten_forward(delta.defined() ? x.add(delta) : x, weight, eps);
}

RmsNormGrads rms_norm_backward(const at::Tensor& d_y, const at::Tensor& d_sum, const at::Tensor& x,
                               const at::Tensor& inverse_rms, const at::Tensor& weight,
                               [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (has_kernel(x, weight, operators)) return kernel_backward(d_y, d_sum, x, inverse_rms, weight);
#endif
  return aten_backward(d_y, d_sum, x, inverse_rms, weight);
}

}  // namespace moetron
