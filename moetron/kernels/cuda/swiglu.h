// Launches of the kernels of swiglu.h. All pointers are of bf16 unless typed, and aligned to 16
// bytes.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "moetron/kernels/cuda/fp8_quantise.h"

namespace moetron {

struct SwigluForward {
  const void* gate_up;   // [rows, 2 width]
  const float* weights;  // [rows]; null for ones
  void* y;               // [rows, width]
  Fp8Output y_in_fp8;    // in place of y, if it has values
  int64_t rows;
  int width;  // a multiple of 8
};
void launch_swiglu_forward(const SwigluForward& args, cudaStream_t stream);

struct SwigluBackward {
  const void* gate_up;   // [rows, 2 width]
  const float* weights;  // [rows]; null for ones
  const void* d_y;       // [rows, width]
  void* d_gate_up;       // [rows, 2 width]
  float* d_weights;      // [rows]; null where there are no weights
  void* activation;      // [rows, width]; null where it is not wanted
  // In place of d_gate_up and activation, if they have values; width is a multiple of 128 then.
  Fp8Output d_gate_up_in_fp8, activation_in_fp8;
  int64_t rows;
  int width;  // a multiple of 8
};
void launch_swiglu_backward(const SwigluBackward& args, cudaStream_t stream);

}  // namespace moetron
