// Numbers of 8 bits and their scales, in registers. E4M3; scales are powers of two.
#pragma once

#include <cuda_fp8.h>

#include "moetron/kernels/cuda/bf16x8.h"

namespace moetron {

constexpr int kFp8TileSize = 128;  // numbers that share a scale
constexpr int kFp8TileLanes = 16;  // threads that hold a tile, eight numbers each
constexpr float kLargestE4m3 = 448.0f;

// Positive numbers compare as their bits do; what is not finite is largest.
__device__ inline unsigned bits_of_largest(const float (&x)[8]) {
  unsigned largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) largest = max(largest, __float_as_uint(fabsf(x[i])));
  return largest;
}

// Over the 16 threads of a tile; the whole warp calls it.
__device__ inline unsigned largest_of_tile(unsigned bits) {
#pragma unroll
  for (int offset = kFp8TileLanes / 2; offset > 0; offset /= 2) {
    bits = max(bits, __shfl_xor_sync(0xffffffffu, bits, offset));
  }
  return bits;
}

// The power of two that takes the largest to at most 448; NaN of what is not finite.
__device__ inline float fp8_scale(unsigned bits_of_largest) {
  constexpr unsigned kInfinity = 0x7f800000u, kNaN = 0x7fc00000u, kSmallestNormal = 0x00800000u;
  if (bits_of_largest >= kInfinity) return __uint_as_float(kNaN);
  const float exact = __fdiv_rn(__uint_as_float(bits_of_largest), kLargestE4m3);
  const unsigned bits = max(__float_as_uint(exact), kSmallestNormal);
  return __uint_as_float((bits + 0x007fffffu) & kInfinity);
}

// Of a power of two between 2^-126 and 2^126.
__device__ inline float reciprocal_of_power(float scale) {
  return __fdiv_rn(1.0f, scale);
}

// x times `inverse`, rounded to nearest, ties to even.
__device__ inline uint2 to_fp8(const float (&x)[8], float inverse) {
  unsigned pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    pairs[i] = __nv_cvt_float2_to_fp8x2(make_float2(x[2 * i] * inverse, x[2 * i + 1] * inverse),
                                        __NV_SATFINITE, __NV_E4M3);
  }
  return make_uint2(pairs[0] | pairs[1] << 16, pairs[2] | pairs[3] << 16);
}

}  // namespace moetron
