#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/heads.h"
#include "moetron/kernels/cuda/rotation.h"

namespace moetron {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kWarp = 32;

// The sum over the kLanes threads that share a head, in each of them.
template <int kLanes>
__device__ float sum_over_head(float x) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  return x;
}

// A block a token; kLanes threads a head.
template <int kLanes, bool kNormed>
__global__ void __launch_bounds__(512) qk_norm_rope_forward_kernel(const NormRotateForward args) {
  constexpr int kHalf = 8 * kLanes, kDim = 2 * kHalf, kHeadsOfWarp = kWarp / kLanes;
  __shared__ TokenAngles<kHalf> angles;
  const int64_t token = blockIdx.x;
  angles.fill(args.rotation, token, kHalf, 1.0f);
  __syncthreads();
  const int lane = threadIdx.x % kLanes, heads = args.num_heads + args.num_kv_heads;
  const bf16* qkv = static_cast<const bf16*>(args.qkv) + token * (heads + args.num_kv_heads) * kDim;
  bf16* q = static_cast<bf16*>(args.q) + token * args.num_heads * kDim;
  bf16* k = static_cast<bf16*>(args.k) + token * args.num_kv_heads * kDim;
  // Whole warps go round, for the shuffles: behind the last head threads repeat it, unseen.
  for (int base = threadIdx.x / kWarp * kHeadsOfWarp; base < heads;
       base += blockDim.x / kWarp * kHeadsOfWarp) {
    const int own = base + threadIdx.x % kWarp / kLanes;
    const int head = min(own, heads - 1);
    const bool is_query = head < args.num_heads;
    HeadSlice x = unpack(load_slice(qkv + head * kDim, kHalf, lane));
    if constexpr (kNormed) {
      float squares = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += x.low[i] * x.low[i] + x.high[i] * x.high[i];
      const float scale = rsqrtf(sum_over_head<kLanes>(squares) / kDim + args.eps);
      if (lane == 0 && own < heads) args.inverse_rms[token * heads + head] = scale;
      const void* norm = is_query ? args.q_norm : args.k_norm;
      const HeadSlice w = unpack(load_slice(static_cast<const bf16*>(norm), kHalf, lane));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        x.low[i] *= scale * w.low[i];
        x.high[i] *= scale * w.high[i];
      }
    }
    rotate(x, angles.cos, angles.sin, kHalf, lane, args.rotation.neighbours);
    bf16* out = is_query ? q + head * kDim : k + (head - args.num_heads) * kDim;
    if (own < heads) store_slice(out, kHalf, lane, x);
  }
}

constexpr int kMostWarps = 9;    // of the backward kernel
constexpr int kBlocksPerSm = 3;  // of so many warps

// The warps of a block are of two sorts, so that one set of accumulators serves a thread: the first
// `for_queries` work on queries, the rest on keys and values.
struct WarpShares {
  int for_queries;
  int for_keys;
};

WarpShares warp_shares(int num_heads, int num_kv_heads, int head_dim) {
  const int heads_of_warp = kWarp / (head_dim / 16);
  const auto warps_of = [&](int heads) { return (heads + heads_of_warp - 1) / heads_of_warp; };
  const int q_tasks = warps_of(num_heads), k_tasks = warps_of(num_kv_heads);
  const int q = std::min((q_tasks + 1) / 2, kMostWarps - 1);
  const int k = (k_tasks * q + q_tasks - 1) / q_tasks;
  if (q + k <= kMostWarps) return {q, k};
  const int share =
      std::clamp(kMostWarps * num_heads / (num_heads + num_kv_heads), 1, kMostWarps - 1);
  return {share, kMostWarps - share};
}

// A block's accumulators of the norms' gradients, sixteen a thread: they would be too many for its
// registers. A thread sees nothing but its own until the end.
struct NormSums {
  float4 quads[4][kMostWarps * kWarp];

  __device__ void add(int quad, const float* x) {
    float4& sum = quads[quad][threadIdx.x];
    sum = make_float4(sum.x + x[0], sum.y + x[1], sum.z + x[2], sum.w + x[3]);
  }

  // Of element `i` of a thread's slice: low, then high.
  __device__ float get(int i) const {
    return reinterpret_cast<const float*>(&quads[i / 4][threadIdx.x])[i % 4];
  }
};

// The gradient of one head's slice, from behind the norm to before it. `sums` takes the weight's
// gradient where the head `counts`.
template <int kLanes>
__device__ void norm_backward(HeadSlice& d, const PackedSlice& packed_x, const bf16* weight,
                              float scale, bool counts, NormSums& sums) {
  const PackedSlice w = load_slice(weight, 8 * kLanes, threadIdx.x % kLanes);
  float dot = 0;
  const auto first_pass = [&](const uint4& packed_w, const uint4& packed, float(&half)[8],
                              int quad) {
    float x[8], wide_w[8], d_w[8];
    unpack(packed, x);
    unpack(packed_w, wide_w);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      d_w[i] = half[i] * (x[i] * scale);
      half[i] *= wide_w[i] * scale;
      dot += half[i] * x[i];
    }
    if (!counts) return;
    sums.add(quad, d_w);
    sums.add(quad + 1, d_w + 4);
  };
  first_pass(w.low, packed_x.low, d.low, 0);
  first_pass(w.high, packed_x.high, d.high, 2);
  // With normed = scale x, d is scale d_normed now, and dot the sum of d_normed normed.
  const float along = sum_over_head<kLanes>(dot) / (16 * kLanes) * scale * scale;
  const HeadSlice x = unpack(packed_x);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    d.low[i] -= along * x.low[i];
    d.high[i] -= along * x.high[i];
  }
}

// One row of each weight's parts: over the heads of a warp, then over the warps of a sort, always
// in the same order.
template <int kLanes>
__device__ void write_norm_parts(const NormRotateBackward& args, const NormSums& sums,
                                 const WarpShares& shares) {
  constexpr int kHalf = 8 * kLanes, kDim = 2 * kHalf;
  __shared__ float rows[kMostWarps][kDim];
  float* row = rows[threadIdx.x / kWarp] + 8 * (threadIdx.x % kLanes);
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    float sum = sums.get(i);
#pragma unroll
    for (int offset = kLanes; offset < kWarp; offset *= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    if (threadIdx.x % kWarp < kLanes) row[i < 8 ? i : kHalf + i - 8] = sum;
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * kDim; i += blockDim.x) {
    const bool is_query = i < kDim;
    const int first = is_query ? 0 : shares.for_queries;
    const int last = is_query ? shares.for_queries : shares.for_queries + shares.for_keys;
    float total = 0;
    for (int warp = first; warp < last; ++warp) total += rows[warp][i % kDim];
    float* parts = is_query ? args.d_q_norm_parts : args.d_k_norm_parts;
    parts[int64_t{blockIdx.x} * kDim + i % kDim] = total;
  }
}

// Blocks go through tokens, and keep their parts of the weights' gradients to themselves.
template <int kLanes, bool kNormed>
__global__ void __launch_bounds__(kMostWarps* kWarp, kBlocksPerSm)
    qk_norm_rope_backward_kernel(const NormRotateBackward args, const WarpShares shares) {
  constexpr int kHalf = 8 * kLanes, kDim = 2 * kHalf, kHeadsOfWarp = kWarp / kLanes;
  __shared__ TokenAngles<kHalf> both_angles[2];
  const int lane = threadIdx.x % kLanes;
  const bool is_query = threadIdx.x / kWarp < shares.for_queries;
  const int warp = threadIdx.x / kWarp - (is_query ? 0 : shares.for_queries);
  const int warps = is_query ? shares.for_queries : shares.for_keys;
  const int heads = is_query ? args.num_heads : args.num_kv_heads;
  const int first_head = is_query ? 0 : args.num_heads;
  const int normed_heads = args.num_heads + args.num_kv_heads;
  const int64_t d_stride = is_query ? args.d_q_stride : args.d_k_stride;
  const auto* d_out = static_cast<const bf16*>(is_query ? args.d_q : args.d_k);
  const auto* qkv = static_cast<const bf16*>(args.qkv);
  auto* d_qkv = static_cast<bf16*>(args.d_qkv);
  const auto* weight = static_cast<const bf16*>(is_query ? args.q_norm : args.k_norm);
  PackedSlice x = {};
  __shared__ NormSums sums;
  if constexpr (kNormed) {
    for (auto& quads : sums.quads) quads[threadIdx.x] = make_float4(0, 0, 0, 0);
  }
  float scale = 1;
  int turn = 0;
  for (int64_t token = blockIdx.x; token < args.tokens; token += gridDim.x, turn ^= 1) {
    // Of two sets in turn, so that one barrier a token is enough.
    TokenAngles<kHalf>& angles = both_angles[turn];
    angles.fill(args.rotation, token, kHalf, -1.0f);
    __syncthreads();
    const int64_t qkv_head = token * (normed_heads + args.num_kv_heads) + first_head;
    for (int base = warp * kHeadsOfWarp; base < heads; base += warps * kHeadsOfWarp) {
      const int own = base + threadIdx.x % kWarp / kLanes;
      const int head = min(own, heads - 1);  // behind the last one threads repeat it, unseen
      const PackedSlice d = load_slice(d_out + token * d_stride + head * kDim, kHalf, lane);
      if constexpr (kNormed) {
        x = load_slice(qkv + (qkv_head + head) * kDim, kHalf, lane);
        scale = args.inverse_rms[token * normed_heads + first_head + head];
      }
      HeadSlice d_x = unpack(d);
      rotate(d_x, angles.cos, angles.sin, kHalf, lane, args.rotation.neighbours);
      if constexpr (kNormed) norm_backward<kLanes>(d_x, x, weight, scale, own < heads, sums);
      if (own < heads) store_slice(d_qkv + (qkv_head + head) * kDim, kHalf, lane, d_x);
    }
    if (is_query) continue;
    const auto* from = reinterpret_cast<const uint4*>(static_cast<const bf16*>(args.d_v) +
                                                      token * args.d_v_stride);
    auto* to = reinterpret_cast<uint4*>(d_qkv + (qkv_head + args.num_kv_heads) * kDim);
    for (int i = warp * kWarp + threadIdx.x % kWarp; i < args.num_kv_heads * kDim / 8;
         i += warps * kWarp) {
      to[i] = from[i];
    }
  }
  if constexpr (kNormed) write_norm_parts<kLanes>(args, sums, shares);
}

constexpr int kSliceThreads = 256;
constexpr int kSlicesInFlight = 2;

__global__ void __launch_bounds__(kSliceThreads) rope_in_place_kernel(const RotateInPlace args) {
  __shared__ TokenAngles<kWidestRotation / 2> angles;
  const int64_t token = blockIdx.x;
  const int half = args.rotated / 2, lanes = half / 8, slices = args.heads * lanes;
  angles.fill(args.rotation, token, half, args.is_gradient ? -1.0f : 1.0f);
  __syncthreads();
  bf16* x = static_cast<bf16*>(args.x) + token * args.token_stride;
  for (int first = threadIdx.x; first < slices; first += kSlicesInFlight * kSliceThreads) {
    PackedSlice packed[kSlicesInFlight];
#pragma unroll
    for (int u = 0; u < kSlicesInFlight; ++u) {
      const int i = first + u * kSliceThreads;
      if (i < slices) packed[u] = load_slice(x + i / lanes * args.head_stride, half, i % lanes);
    }
#pragma unroll
    for (int u = 0; u < kSlicesInFlight; ++u) {
      const int i = first + u * kSliceThreads;
      if (i >= slices) continue;
      HeadSlice slice = unpack(packed[u]);
      rotate(slice, angles.cos, angles.sin, half, i % lanes, args.rotation.neighbours);
      store_slice(x + i / lanes * args.head_stride, half, i % lanes, slice);
    }
  }
}

template <class Args>
unsigned num_blocks(const Args& args) {
  return static_cast<unsigned>(args.tokens);
}

}  // namespace

void launch_norm_rotate_forward(const NormRotateForward& args, cudaStream_t stream) {
  const int lanes = args.head_dim / 16, heads = args.num_heads + args.num_kv_heads;
  // So many threads that they go round twice.
  const int threads = std::clamp(((heads + 1) / 2 * lanes + kWarp - 1) / kWarp * kWarp, 64, 512);
  const auto kernel = lanes == 8 ? (args.q_norm != nullptr ? qk_norm_rope_forward_kernel<8, true>
                                                           : qk_norm_rope_forward_kernel<8, false>)
                                 : (args.q_norm != nullptr ? qk_norm_rope_forward_kernel<4, true>
                                                           : qk_norm_rope_forward_kernel<4, false>);
  kernel<<<num_blocks(args), threads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "qk_norm_rope_forward_kernel");
}

int64_t norm_rotate_parts(int64_t tokens, int num_heads, int num_kv_heads, int head_dim) {
  const WarpShares shares = warp_shares(num_heads, num_kv_heads, head_dim);
  const int64_t blocks_per_sm = kBlocksPerSm * kMostWarps / (shares.for_queries + shares.for_keys);
  return even_grid(tokens, blocks_per_sm * num_multiprocessors());
}

void launch_norm_rotate_backward(const NormRotateBackward& args, cudaStream_t stream) {
  const WarpShares shares = warp_shares(args.num_heads, args.num_kv_heads, args.head_dim);
  const auto blocks = static_cast<unsigned>(
      norm_rotate_parts(args.tokens, args.num_heads, args.num_kv_heads, args.head_dim));
  const int threads = (shares.for_queries + shares.for_keys) * kWarp;
  const bool normed = args.q_norm != nullptr;
  const auto kernel = args.head_dim == 128 ? (normed ? qk_norm_rope_backward_kernel<8, true>
                                                     : qk_norm_rope_backward_kernel<8, false>)
                                           : (normed ? qk_norm_rope_backward_kernel<4, true>
                                                     : qk_norm_rope_backward_kernel<4, false>);
  kernel<<<blocks, threads, 0, stream>>>(args, shares);
  check_cuda(cudaGetLastError(), "qk_norm_rope_backward_kernel");
}

void launch_rotate_in_place(const RotateInPlace& args, cudaStream_t stream) {
  rope_in_place_kernel<<<num_blocks(args), kSliceThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "rope_in_place_kernel");
}

}  // namespace moetron
