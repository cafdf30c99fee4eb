// Products of E4M3 factors with their scales on Hopper's tensor cores, of one pair of matrices or
// of one for each group.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

// Lies row by row without gaps, at a multiple of 16 bytes.
struct Fp8Matrix {
  const void* values = nullptr;
  const float* scales = nullptr;
  int64_t scale_stride = 0;  // numbers from row to row of the scales
};

// result [m, n] = a b^T, of a [m, k] and b [n, k]; n is a multiple of 8, k of 16.
struct Fp8Gemm {
  Fp8Matrix a;  // scales [k / 128, m], rows at multiples of 16 bytes
  Fp8Matrix b;
  void* result = nullptr;         // contiguous
  const int32_t* ends = nullptr;  // [groups], on the GPU; null: one group, of all
  int num_groups = 1;
  int m = 0, n = 0, k = 0;
  bool adds = false;  // to what the result holds, of weight gradients
};

// bf16 [m, n]; b and its scales are [groups, n, k] and [groups, n / 128, k / 128]; a group's rows
// of a, and of the result, end where `ends` says.
void launch_fp8_product(const Fp8Gemm& gemm, cudaStream_t stream);

// fp32 [groups, m, n]; a's scales [m / 128, k / 128], and b's [n / 128, k / 128]; the columns that
// a group sums over end where `ends` says, at multiples of 128.
void launch_fp8_weight_grad(const Fp8Gemm& gemm, cudaStream_t stream);

}  // namespace moetron
