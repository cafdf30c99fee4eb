// Launches of the kernels of norm.h. All pointers are of bf16 unless typed, aligned to 16 bytes.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

constexpr int64_t kWidestNorm = 8192;  // elements a row; a multiple of 8

struct RmsNormForward {
  const void* x;  // rows of `size`, x_stride elements apart
  int64_t x_stride;
  const void* delta;  // likewise; null for none
  int64_t delta_stride;
  const void* weight;  // [size]
  void* sum;           // [rows, size], written where there is a delta
  void* y;             // [rows, size]
  float* inverse_rms;  // [rows]
  int64_t rows;
  int size;
  float eps;
};
void launch_rms_norm_forward(const RmsNormForward& args, cudaStream_t stream);

struct RmsNormBackward {
  const void* d_y;  // rows of `size`, as in all with a stride
  int64_t d_y_stride;
  const void* d_sum;  // null for none
  int64_t d_sum_stride;
  const void* x;
  int64_t x_stride;
  const void* weight;        // [size]
  const float* inverse_rms;  // [rows]
  void* d_x;                 // [rows, size]
  float* d_weight_parts;     // [rms_norm_parts(rows, size), size]
  int64_t rows;
  int size;
};
int64_t rms_norm_parts(int64_t rows, int64_t size);
void launch_rms_norm_backward(const RmsNormBackward& args, cudaStream_t stream);

}  // namespace moetron
