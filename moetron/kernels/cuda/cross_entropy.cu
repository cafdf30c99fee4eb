// A row is read from memory once: a block, or the blocks of a cluster together, keep it in shared
// memory between the sum and the gradient.
#include <cfloat>
#include <cooperative_groups.h>
#include <cuda_pipeline.h>
#include <type_traits>

#include "moetron/kernels/cuda/bf16x8.h"
#include "moetron/kernels/cuda/cross_entropy.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {
namespace {

constexpr int kThreads = 512;
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr int kBlocksPerSm = 3;              // one waits for its row while others compute
constexpr int64_t kBytesOfBlock = 72 << 10;  // of a row; so many blocks fit together
constexpr int64_t kMostBytes = 224 << 10;    // what one block can get
constexpr int kMostBlocks = 8;               // of a cluster, on every GPU that has them

// kWidth elements, loaded and stored together.
template <int kWidth>
using Vector = std::conditional_t<kWidth == 8, uint4, __nv_bfloat16>;

using moetron::pack;
using moetron::unpack;

__device__ void unpack(__nv_bfloat16 packed, float (&x)[1]) {
  x[0] = __bfloat162float(packed);
}

__device__ __nv_bfloat16 pack(const float (&x)[1]) {
  return __float2bfloat16_rn(x[0]);
}

// Of some logits: the largest, and the sum of exp(logit - largest).
struct ExpSum {
  float largest;
  float sum;
};

__device__ ExpSum join(const ExpSum& a, const ExpSum& b) {
  const float largest = fmaxf(a.largest, b.largest);
  return {largest, a.sum * __expf(a.largest - largest) + b.sum * __expf(b.largest - largest)};
}

// Over a warp, in lane 0.
__device__ ExpSum join_lanes(ExpSum x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const ExpSum other{__shfl_down_sync(0xffffffffu, x.largest, offset),
                       __shfl_down_sync(0xffffffffu, x.sum, offset)};
    x = join(x, other);
  }
  return x;
}

// Over all threads of the cluster; the same bits in each.
__device__ ExpSum join_cluster(ExpSum x) {
  __shared__ ExpSum of_warps[kWarps];
  __shared__ ExpSum of_block;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  x = join_lanes(x);
  if (lane == 0) of_warps[warp] = x;
  __syncthreads();
  if (warp == 0) {
    x = join_lanes(lane < kWarps ? of_warps[lane] : ExpSum{-FLT_MAX, 0});
    if (lane == 0) of_block = x;
  }
  const auto cluster = cooperative_groups::this_cluster();
  cluster.sync();
  ExpSum total = *cluster.map_shared_rank(&of_block, 0);
  for (unsigned rank = 1; rank < cluster.num_blocks(); ++rank) {
    total = join(total, *cluster.map_shared_rank(&of_block, rank));
  }
  cluster.sync();  // no block leaves while another reads its memory
  return total;
}

// What a thread's own vectors, at every kThreads-th place of `kept`, add up to.
template <int kWidth>
__device__ ExpSum sum_own(const Vector<kWidth>* kept, int count) {
  float x[kWidth];
  ExpSum own{-FLT_MAX, 0};  // finite: the differences from it are numbers
  for (int i = threadIdx.x; i < count; i += kThreads) {
    unpack(kept[i], x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) own.largest = fmaxf(own.largest, x[k]);
  }
  for (int i = threadIdx.x; i < count; i += kThreads) {
    unpack(kept[i], x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) own.sum += __expf(x[k] - own.largest);
  }
  return own;
}

// A cluster a row, of which each block has a slice. Every thread reads in shared memory only what
// it has copied there itself.
template <int kWidth>
__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    cross_entropy_kernel(const CrossEntropyArgs args) {
  extern __shared__ uint4 cross_entropy_memory[];
  const auto cluster = cooperative_groups::this_cluster();
  const auto num_blocks = static_cast<int>(cluster.num_blocks());
  const auto rank = static_cast<int>(cluster.block_rank());
  const int64_t row = blockIdx.x / num_blocks;
  const int num_vectors = args.vocab / kWidth;
  const int share = (num_vectors + num_blocks - 1) / num_blocks;
  const int begin = rank * share;
  const int count = min(share, num_vectors - begin);
  auto* const logits = static_cast<__nv_bfloat16*>(args.logits) + row * args.vocab;
  auto* const slice = reinterpret_cast<Vector<kWidth>*>(logits) + begin;
  auto* const kept = reinterpret_cast<Vector<kWidth>*>(cross_entropy_memory);

  const int64_t label = args.labels[row];
  if (label == args.ignored) {
    const float zeros[kWidth] = {};
    for (int i = threadIdx.x; i < count; i += kThreads) slice[i] = pack(zeros);
    if (rank == 0 && threadIdx.x == 0) args.losses[row] = 0;
    return;
  }
  for (int i = threadIdx.x; i < count; i += kThreads) {
    if constexpr (kWidth == 8) {
      __pipeline_memcpy_async(kept + i, slice + i, sizeof(uint4));
    } else {
      kept[i] = slice[i];
    }
  }
  __pipeline_commit();
  const bool is_known = label >= 0 && label < args.vocab;
  float at_label = __int_as_float(0x7fffffff);  // NaN
  if (rank == 0 && threadIdx.x == 0 && is_known) at_label = __bfloat162float(logits[label]);
  __pipeline_wait_prior(0);
  const ExpSum total = join_cluster(sum_own<kWidth>(kept, count));
  if (rank == 0 && threadIdx.x == 0) {
    args.losses[row] = logf(total.sum) + (total.largest - at_label);
  }
  const int own_label = is_known ? static_cast<int>(label) - begin * kWidth : -1;
  const float factor = args.scale / total.sum;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    float x[kWidth];
    unpack(kept[i], x);
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      x[k] = __expf(x[k] - total.largest) * factor;
      if (i * kWidth + k == own_label) x[k] -= args.scale;
    }
    slice[i] = pack(x);
  }
}

template <int kWidth>
void launch(const CrossEntropyArgs& args, cudaStream_t stream) {
  const auto bytes_of_block = [&](int blocks) {
    const int num_vectors = args.vocab / kWidth;
    return (num_vectors + blocks - 1) / blocks * static_cast<int64_t>(sizeof(Vector<kWidth>));
  };
  int blocks = 1;
  while (blocks < kMostBlocks && bytes_of_block(blocks) > kBytesOfBlock) blocks *= 2;
  const int64_t bytes = bytes_of_block(blocks);
  MT_CHECK(bytes <= kMostBytes, "cross-entropy of ", args.vocab, " logits a token");
  const auto kernel = cross_entropy_kernel<kWidth>;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(bytes)),
             "cudaFuncSetAttribute");
  cudaLaunchAttribute cluster;
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(args.tokens * blocks));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = static_cast<size_t>(bytes);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  check_cuda(cudaLaunchKernelEx(&config, kernel, args), "cross_entropy_kernel");
}

}  // namespace

void launch_cross_entropy(const CrossEntropyArgs& args, cudaStream_t stream) {
  const bool aligned = args.vocab % 8 == 0 && reinterpret_cast<uintptr_t>(args.logits) % 16 == 0;
  if (aligned) {
    launch<8>(args, stream);
  } else {
    launch<1>(args, stream);
  }
}

}  // namespace moetron
