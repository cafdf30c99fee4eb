#include "moetron/kernels/cuda/grad_norm.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {
namespace {

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr int kLoads = 8;        // of 16 bytes, under way together in each thread
constexpr int kBlocksPerSm = 4;  // leaves registers for those

__device__ void add_square(double& sum, float x) {
  const auto wide = static_cast<double>(x);
  sum = fma(wide, wide, sum);
}

// The sum over the block's threads, in thread 0 and in the same order on every run.
__device__ double sum_over_block(double x) {
  __shared__ double partial[kThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < kThreads / kWarp; ++warp) total += partial[warp];
  return total;
}

__global__ void __launch_bounds__(kThreads, kBlocksPerSm)
    grad_norm_partial_kernel(const GradNormArgs args) {
  const int64_t* const block = args.blocks + 2 * int64_t{blockIdx.x};
  const auto* const values = reinterpret_cast<const float*>(block[0]);
  const auto count = static_cast<int>(block[1]);
  const auto* const vectors = reinterpret_cast<const float4*>(values);
  const int num_vectors = block[0] % 16 == 0 ? count / 4 : 0;
  double sums[4] = {};  // several, for an addition takes a while
  for (int begin = threadIdx.x; begin < num_vectors; begin += kLoads * kThreads) {
    float4 x[kLoads];
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int place = begin + i * kThreads;
      x[i] = place < num_vectors ? __ldg(vectors + place) : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      add_square(sums[0], x[i].x);
      add_square(sums[1], x[i].y);
      add_square(sums[2], x[i].z);
      add_square(sums[3], x[i].w);
    }
  }
  for (int i = 4 * num_vectors + threadIdx.x; i < count; i += kThreads) {
    add_square(sums[0], __ldg(values + i));
  }
  const double total = sum_over_block((sums[0] + sums[1]) + (sums[2] + sums[3]));
  if (threadIdx.x == 0) args.partial[blockIdx.x] = total;
}

// A block a slice.
__global__ void __launch_bounds__(kThreads) grad_norm_sum_kernel(const GradNormArgs args) {
  const int64_t end = args.first_blocks[blockIdx.x + 1];
  double sum = 0;
  for (int64_t i = args.first_blocks[blockIdx.x] + threadIdx.x; i < end; i += kThreads) {
    sum += args.partial[i];
  }
  const double total = sum_over_block(sum);
  if (threadIdx.x == 0) args.sums[blockIdx.x] = total;
}

}  // namespace

void launch_grad_norm(const GradNormArgs& args, cudaStream_t stream) {
  if (args.num_blocks > 0) {
    grad_norm_partial_kernel<<<static_cast<unsigned>(args.num_blocks), kThreads, 0, stream>>>(args);
    check_cuda(cudaGetLastError(), "grad_norm_partial_kernel");
  }
  grad_norm_sum_kernel<<<static_cast<unsigned>(args.num_slices), kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "grad_norm_sum_kernel");
}

}  // namespace moetron
