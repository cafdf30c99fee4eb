// Eight bf16 numbers: the 16 bytes that a thread loads or stores at once.
#pragma once

#include <cuda_bf16.h>

namespace moetron {

__device__ inline void unpack(const uint4& packed, float (&x)[8]) {
  const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

// Rounds to nearest, ties to even.
__device__ inline uint4 pack(const float (&x)[8]) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    words[i] = *reinterpret_cast<const unsigned*>(&pair);
  }
  return make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace moetron
