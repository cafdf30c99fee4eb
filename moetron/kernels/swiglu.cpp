#include "moetron/kernels/swiglu.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/swiglu.h"
#endif

namespace moetron {
namespace {

at::Tensor aten_forward(const at::Tensor& gate_up, const at::Tensor& weights) {
  const auto halves = gate_up.chunk(2, -1);
  at::Tensor y = at::silu(halves[0]).mul_(halves[1]);
  if (weights.defined()) y.mul_(weights.to(y.dtype()).unsqueeze(-1));
  return y;
}

SwigluGrads aten_backward(const at::Tensor& gate_up, const at::Tensor& weights,
                          const at::Tensor& d_y) {
  const auto halves = gate_up.chunk(2, -1);
  const at::Tensor sigmoid = halves[0].sigmoid();
  const at::Tensor silu = sigmoid.mul(halves[0]);
  at::Tensor d_product = d_y;
  SwigluGrads grads;
  if (weights.defined()) {
    grads.d_weights =
        d_y.mul(silu).mul_(halves[1]).sum(-1, /*keepdim=*/false, at::kFloat);  // [rows]
    d_product = d_y.mul(weights.to(d_y.dtype()).unsqueeze(-1));
  }
  grads.d_gate_up = at::empty_like(gate_up);
  auto d_halves = grads.d_gate_up.chunk(2, -1);
  // silu' = s (1 + gate (1 - s)) = s + silu (1 - s)
  at::mul_out(d_halves[0], d_product.mul(halves[1]), sigmoid.add(silu).sub_(silu.mul(sigmoid)));
  at::mul_out(d_halves[1], d_product, silu);
  return grads;
}

#ifdef MOETRON_CUDA
bool has_kernel(const at::Tensor& gate_up, Operators operators) {
  return operators == Operators::kFastest && is_gpu_bf16(gate_up) && gate_up.is_contiguous() &&
         has_aligned_rows(gate_up, gate_up.size(-1) / 2);
}

std::vector<int64_t> shape_of_y(const at::Tensor& gate_up) {
  std::vector<int64_t> shape = gate_up.sizes().vec();
  shape.back() /= 2;
  return shape;
}

const float* weights_of_rows(const at::Tensor& weights, int64_t rows) {
  if (!weights.defined()) return nullptr;
  MT_CHECK(weights.numel() == rows && weights.is_contiguous(), "weights of shape ", weights.sizes(),
           " for ", rows, " rows");
  return weights.const_data_ptr<float>();
}

// A launch without its outputs.
SwigluForward forward_of(const at::Tensor& gate_up, const at::Tensor& weights) {
  const int64_t rows = gate_up.numel() / gate_up.size(-1);
  return {.gate_up = gate_up.const_data_ptr(),
          .weights = weights_of_rows(weights, rows),
          .rows = rows,
          .width = static_cast<int>(gate_up.size(-1) / 2)};
}

// `d_rows`: d_y in memory that the kernel can read, which outlives the launch.
SwigluBackward backward_of(const at::Tensor& gate_up, const at::Tensor& weights,
                           const at::Tensor& d_rows, const at::Tensor& d_weights) {
  const SwigluForward forward = forward_of(gate_up, weights);
  return {.gate_up = forward.gate_up,
          .weights = forward.weights,
          .d_y = d_rows.const_data_ptr(),
          .d_weights = d_weights.defined() ? d_weights.mutable_data_ptr<float>() : nullptr,
          .rows = forward.rows,
          .width = forward.width};
}

at::Tensor aligned_d_y(const at::Tensor& d_y, const at::Tensor& gate_up) {
  MT_CHECK(is_gpu_bf16(d_y) && 2 * d_y.numel() == gate_up.numel(), "d_y of shape ", d_y.sizes(),
           " for gate_up of shape ", gate_up.sizes());
  const bool fits = d_y.is_contiguous() && has_aligned_rows(d_y, d_y.size(-1));
  return fits ? d_y : d_y.clone(at::MemoryFormat::Contiguous);
}

at::Tensor kernel_forward(const at::Tensor& gate_up, const at::Tensor& weights) {
  const at::Tensor y = at::empty(shape_of_y(gate_up), gate_up.options());
  if (y.numel() == 0) return y;
  SwigluForward launch = forward_of(gate_up, weights);
  launch.y = y.mutable_data_ptr();
  launch_swiglu_forward(launch, current_stream(gate_up));
  return y;
}

SwigluGrads kernel_backward(const at::Tensor& gate_up, const at::Tensor& weights,
                            const at::Tensor& d_y, bool with_activation) {
  const at::Tensor d_rows = aligned_d_y(d_y, gate_up);
  SwigluGrads grads{.d_gate_up = at::empty(gate_up.sizes(), gate_up.options())};
  if (weights.defined()) grads.d_weights = at::empty(weights.sizes(), weights.options());
  if (with_activation) grads.activation = at::empty(shape_of_y(gate_up), gate_up.options());
  if (gate_up.numel() == 0) return grads;
  SwigluBackward launch = backward_of(gate_up, weights, d_rows, grads.d_weights);
  launch.d_gate_up = grads.d_gate_up.mutable_data_ptr();
  launch.activation = with_activation ? grads.activation.mutable_data_ptr() : nullptr;
  launch_swiglu_backward(launch, current_stream(gate_up));
  return grads;
}

bool has_fp8_kernel(const at::Tensor& gate_up, at::ScalarType dtype) {
  return has_kernel(gate_up, Operators::kFastest) && gate_up.dim() == 2 && gate_up.numel() > 0 &&
         gate_up.size(1) % (2 * kFp8Tile) == 0 && dtype == at::kFloat8_e4m3fn;
}

Fp8Output output_of(const Fp8Rows& rows) {
  return {.values = rows.values.data_ptr(),
          .scales = rows.scales.mutable_data_ptr<float>(),
          .scale_stride = rows.scales.stride(0)};
}

Fp8Rows kernel_forward_fp8(const at::Tensor& gate_up, const at::Tensor& weights) {
  Fp8Rows y =
      empty_fp8_rows(gate_up.size(0), gate_up.size(1) / 2, at::kFloat8_e4m3fn, gate_up.device());
  SwigluForward launch = forward_of(gate_up, weights);
  launch.y_in_fp8 = output_of(y);
  launch_swiglu_forward(launch, current_stream(gate_up));
  return y;
}

Fp8SwigluGrads kernel_backward_fp8(const at::Tensor& gate_up, const at::Tensor& weights,
                                   const at::Tensor& d_y) {
  const at::Tensor d_rows = aligned_d_y(d_y, gate_up);
  const auto memory = [&](int64_t size) {
    return empty_fp8_rows(gate_up.size(0), size, at::kFloat8_e4m3fn, gate_up.device());
  };
  Fp8SwigluGrads grads{.d_gate_up = memory(gate_up.size(1)),
                       .activation = memory(gate_up.size(1) / 2)};
  if (weights.defined()) grads.d_weights = at::empty(weights.sizes(), weights.options());
  SwigluBackward launch = backward_of(gate_up, weights, d_rows, grads.d_weights);
  launch.d_gate_up_in_fp8 = output_of(grads.d_gate_up);
  launch.activation_in_fp8 = output_of(grads.activation);
  launch_swiglu_backward(launch, current_stream(gate_up));
  return grads;
}
#endif

}  // namespace

at::Tensor swiglu_forward(const at::Tensor& gate_up, const at::Tensor& weights,
                          [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (has_kernel(gate_up, operators)) return kernel_forward(gate_up, weights);
#endif
  return aten_forward(gate_up, weights);
}

SwigluGrads swiglu_backward(const at::Tensor& gate_up, const at::Tensor& weights,
                            const at::Tensor& d_y, bool with_activation,
                            [[maybe_unused]] Operators operators) {
#ifdef MOETRON_CUDA
  if (has_kernel(gate_up, operators))
    return kernel_backward(gate_up, weights, d_y, with_activation);
#endif
  SwigluGrads grads = aten_backward(gate_up, weights, d_y);
  if (with_activation) grads.activation = aten_forward(gate_up, weights);
  return grads;
}

Fp8Rows swiglu_forward_fp8(const at::Tensor& gate_up, const at::Tensor& weights,
                           at::ScalarType dtype) {
#ifdef MOETRON_CUDA
  if (has_fp8_kernel(gate_up, dtype)) return kernel_forward_fp8(gate_up, weights);
#endif
  return quantise_rows(swiglu_forward(gate_up, weights), dtype);
}

Fp8SwigluGrads swiglu_backward_fp8(const at::Tensor& gate_up, const at::Tensor& weights,
                                   const at::Tensor& d_y, const Fp8Products& products) {
#ifdef MOETRON_CUDA
  if (has_fp8_kernel(gate_up, products.values) && products.gradients == products.values) {
    return kernel_backward_fp8(gate_up, weights, d_y);
  }
#endif
  const SwigluGrads grads = swiglu_backward(gate_up, weights, d_y);
  return {.d_gate_up = quantise_rows(grads.d_gate_up, products.gradients),
          .d_weights = grads.d_weights,
          .activation = quantise_rows(grads.activation, products.values)};
}

}  // namespace moetron
