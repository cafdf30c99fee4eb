// SwiGLU (Shazeer, arXiv 2002.05202): silu(gate) * up, times a weight a row where one is given. One
// kernel a pass for bf16 on a GPU; ATen elsewhere, and where `operators` are plain.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/fp8.h"
#include "moetron/kernels/operators.h"

namespace moetron {

// gate_up [rows, 2 width], gate first; weights [rows] fp32 or undefined -> [rows, width]. The
// weight may be the router's probability, for the product behind is linear and this its narrow
// side.
at::Tensor swiglu_forward(const at::Tensor& gate_up, const at::Tensor& weights,
                          Operators operators = Operators::kFastest);

struct SwigluGrads {
  at::Tensor d_gate_up;   // [rows, 2 width]
  at::Tensor d_weights;   // [rows] fp32; undefined without weights
  at::Tensor activation;  // [rows, width], the forward's result again; undefined unless asked for
};

// d_y [rows, width]
SwigluGrads swiglu_backward(const at::Tensor& gate_up, const at::Tensor& weights,
                            const at::Tensor& d_y, bool with_activation = true,
                            Operators operators = Operators::kFastest);

// The same with results in 8 bits, for the products behind.
Fp8Rows swiglu_forward_fp8(const at::Tensor& gate_up, const at::Tensor& weights,
                           at::ScalarType dtype);
struct Fp8SwigluGrads {
  Fp8Rows d_gate_up;
  at::Tensor d_weights;  // [rows] fp32; undefined without weights
  Fp8Rows activation;
};
Fp8SwigluGrads swiglu_backward_fp8(const at::Tensor& gate_up, const at::Tensor& weights,
                                   const at::Tensor& d_y, const Fp8Products& products);

}  // namespace moetron
