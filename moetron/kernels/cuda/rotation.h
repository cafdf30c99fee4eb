// The rotation of heads, as the kernels of heads share it.
#pragma once

#include "moetron/kernels/cuda/bf16x8.h"
#include "moetron/kernels/cuda/heads.h"

namespace moetron {

struct Angle {
  float cos;
  float sin;
};

// Of one pair of a token's elements; the other way round with direction -1.
__device__ inline Angle angle_of(const RotationArgs& rotation, int64_t token, int pair,
                                 float direction) {
  const float position = static_cast<float>(rotation.positions[token]);
  Angle angle;
  sincosf(position * rotation.inverse_frequencies[pair], &angle.sin, &angle.cos);
  return {angle.cos * rotation.scale, angle.sin * rotation.scale * direction};
}

// A token's angles, made once in shared memory and read for every head.
template <int kPairs>
struct TokenAngles {
  alignas(16) float cos[kPairs];
  alignas(16) float sin[kPairs];

  // For all threads of a block; a barrier must follow.
  __device__ void fill(const RotationArgs& rotation, int64_t token, int pairs, float direction) {
    for (int pair = threadIdx.x; pair < pairs; pair += blockDim.x) {
      const Angle angle = angle_of(rotation, token, pair, direction);
      cos[pair] = angle.cos;
      sin[pair] = angle.sin;
    }
  }
};

// What one thread holds of a head: eight elements of the first half and the eight that stand
// opposite in the second. Both members of every pair are in one thread, whichever way they pair.
struct HeadSlice {
  float low[8];
  float high[8];
};

struct PackedSlice {
  uint4 low;
  uint4 high;
};

__device__ inline PackedSlice load_slice(const __nv_bfloat16* head, int half, int lane) {
  return {*reinterpret_cast<const uint4*>(head + 8 * lane),
          *reinterpret_cast<const uint4*>(head + half + 8 * lane)};
}

__device__ inline HeadSlice unpack(const PackedSlice& packed) {
  HeadSlice slice;
  unpack(packed.low, slice.low);
  unpack(packed.high, slice.high);
  return slice;
}

__device__ inline void store_slice(__nv_bfloat16* head, int half, int lane,
                                   const HeadSlice& slice) {
  *reinterpret_cast<uint4*>(head + 8 * lane) = pack(slice.low);
  *reinterpret_cast<uint4*>(head + half + 8 * lane) = pack(slice.high);
}

__device__ inline void rotate_pair(float& a, float& b, float cos, float sin) {
  const float turned = a * cos - b * sin;
  b = b * cos + a * sin;
  a = turned;
}

// Turns the slice of thread `lane` of a head whose first half has `half` elements.
__device__ inline void rotate(HeadSlice& slice, const float* cos, const float* sin, int half,
                              int lane, bool neighbours) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    const int pair = neighbours ? part * half / 2 + 4 * lane : 8 * lane + 4 * part;
    const float4 c4 = *reinterpret_cast<const float4*>(cos + pair);
    const float4 s4 = *reinterpret_cast<const float4*>(sin + pair);
    const float c[4] = {c4.x, c4.y, c4.z, c4.w}, s[4] = {s4.x, s4.y, s4.z, s4.w};
    if (neighbours) {
      float(&x)[8] = part == 0 ? slice.low : slice.high;
#pragma unroll
      for (int i = 0; i < 4; ++i) rotate_pair(x[2 * i], x[2 * i + 1], c[i], s[i]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rotate_pair(slice.low[4 * part + i], slice.high[4 * part + i], c[i], s[i]);
      }
    }
  }
}

}  // namespace moetron
