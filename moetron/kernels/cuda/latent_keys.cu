// Latent attention's keys: joining every head's own part with the rotated part that all share, and
// the gradient of that.
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/rotation.h"

namespace moetron {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kHeadsInFlight = 4;  // of a warp

// The two members of pair `pair` in a vector of `size` elements.
struct Pair {
  int first;
  int second;
};

__device__ Pair members(int pair, int size, bool neighbours) {
  return neighbours ? Pair{2 * pair, 2 * pair + 1} : Pair{pair, pair + size / 2};
}

// A block a token, a warp some heads.
__global__ void __launch_bounds__(kThreads)
    latent_keys_forward_kernel(const LatentKeysForward args) {
  alignas(16) __shared__ bf16 rotated[kWidestRotation];
  const int64_t token = blockIdx.x;
  const auto* k_rope = static_cast<const bf16*>(args.k_rope) + token * args.k_rope_stride;
  for (int pair = threadIdx.x; pair < args.rope / 2; pair += kThreads) {
    const Angle angle = angle_of(args.rotation, token, pair, 1.0f);
    const Pair at = members(pair, args.rope, args.rotation.neighbours);
    float a = __bfloat162float(k_rope[at.first]), b = __bfloat162float(k_rope[at.second]);
    rotate_pair(a, b, angle.cos, angle.sin);
    rotated[at.first] = __float2bfloat16_rn(a);
    rotated[at.second] = __float2bfloat16_rn(b);
  }
  __syncthreads();
  const int nope = args.nope / 8, rope = args.rope / 8, width = args.value_dim / 8;  // in vectors
  const int lane = threadIdx.x % kWarp;
  const int64_t first = token * args.heads;
  const auto* up = static_cast<const uint4*>(args.up) + first * (nope + width);
  auto* keys = static_cast<uint4*>(args.keys) + first * (nope + rope);
  auto* values = static_cast<uint4*>(args.values) + first * width;
  for (int base = threadIdx.x / kWarp * kHeadsInFlight; base < args.heads;
       base += kWarps * kHeadsInFlight) {
    for (int column = lane; column < nope + width; column += kWarp) {
      uint4 parts[kHeadsInFlight];
#pragma unroll
      for (int u = 0; u < kHeadsInFlight; ++u) {
        if (base + u < args.heads) parts[u] = up[(base + u) * (nope + width) + column];
      }
#pragma unroll
      for (int u = 0; u < kHeadsInFlight; ++u) {
        if (base + u >= args.heads) continue;
        uint4* out = column < nope ? keys + (base + u) * (nope + rope) + column
                                   : values + (base + u) * width + column - nope;
        *out = parts[u];
      }
    }
    const int last = min(args.heads, base + kHeadsInFlight);
    for (int i = lane; i < (last - base) * rope; i += kWarp) {
      keys[(base + i / rope) * (nope + rope) + nope + i % rope] =
          reinterpret_cast<const uint4*>(rotated)[i % rope];
    }
  }
}

// Adds d_keys' rotated parts of all heads up, in fp32: thread t takes vector t % rope of every head
// t / rope + n kThreads / rope; then the threads of a warp join, in `sums` the warps.
__device__ void sum_rope_over_heads(const LatentKeysBackward& args, const bf16* d_keys,
                                    float (&sums)[kWarps][kWidestRotation]) {
  const int rope = args.rope / 8, vector = threadIdx.x % rope;
  float total[8] = {};
#pragma unroll 4
  for (int head = threadIdx.x / rope; head < args.heads; head += kThreads / rope) {
    const bf16* part = d_keys + head * args.d_keys_head_stride + args.nope + 8 * vector;
    float d[8];
    unpack(*reinterpret_cast<const uint4*>(part), d);
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] += d[i];
  }
  for (int offset = rope; offset < kWarp; offset *= 2) {
#pragma unroll
    for (int i = 0; i < 8; ++i) total[i] += __shfl_xor_sync(0xffffffffu, total[i], offset);
  }
  if (threadIdx.x % kWarp >= rope) return;
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[threadIdx.x / kWarp][8 * vector + i] = total[i];
}

__global__ void __launch_bounds__(kThreads)
    latent_keys_backward_kernel(const LatentKeysBackward args) {
  __shared__ float sums[kWarps][kWidestRotation];
  const int64_t token = blockIdx.x;
  const auto* d_keys = static_cast<const bf16*>(args.d_keys) + token * args.d_keys_token_stride;
  const auto* d_values =
      static_cast<const bf16*>(args.d_values) + token * args.d_values_token_stride;
  sum_rope_over_heads(args, d_keys, sums);
  const int nope = args.nope / 8, width = args.value_dim / 8, lane = threadIdx.x % kWarp;
  auto* d_up = static_cast<uint4*>(args.d_up) + token * args.heads * (nope + width);
  for (int base = threadIdx.x / kWarp * kHeadsInFlight; base < args.heads;
       base += kWarps * kHeadsInFlight) {
    for (int column = lane; column < nope + width; column += kWarp) {
      uint4 parts[kHeadsInFlight];
#pragma unroll
      for (int u = 0; u < kHeadsInFlight; ++u) {
        const int head = base + u;
        if (head >= args.heads) continue;
        const bf16* part = column < nope
                               ? d_keys + head * args.d_keys_head_stride + 8 * column
                               : d_values + head * args.d_values_head_stride + 8 * (column - nope);
        parts[u] = *reinterpret_cast<const uint4*>(part);
      }
#pragma unroll
      for (int u = 0; u < kHeadsInFlight; ++u) {
        if (base + u < args.heads) d_up[(base + u) * (nope + width) + column] = parts[u];
      }
    }
  }
  __syncthreads();
  auto* d_k_rope = static_cast<bf16*>(args.d_k_rope) + token * args.rope;
  for (int pair = threadIdx.x; pair < args.rope / 2; pair += kThreads) {
    const Angle angle = angle_of(args.rotation, token, pair, -1.0f);
    const Pair at = members(pair, args.rope, args.rotation.neighbours);
    float a = 0, b = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      a += sums[warp][at.first];
      b += sums[warp][at.second];
    }
    rotate_pair(a, b, angle.cos, angle.sin);
    d_k_rope[at.first] = __float2bfloat16_rn(a);
    d_k_rope[at.second] = __float2bfloat16_rn(b);
  }
}

}  // namespace

void launch_latent_keys_forward(const LatentKeysForward& args, cudaStream_t stream) {
  latent_keys_forward_kernel<<<static_cast<unsigned>(args.tokens), kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "latent_keys_forward_kernel");
}

void launch_latent_keys_backward(const LatentKeysBackward& args, cudaStream_t stream) {
  latent_keys_backward_kernel<<<static_cast<unsigned>(args.tokens), kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "latent_keys_backward_kernel");
}

}  // namespace moetron
