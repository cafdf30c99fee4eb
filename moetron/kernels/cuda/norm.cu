#include <cuda_pipeline.h>

#include "moetron/kernels/cuda/bf16x8.h"
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/norm.h"

namespace moetron {
namespace {

constexpr int kWarp = 32;
constexpr int kRowsOfWarps = 8;      // rows of a block where one warp holds a row
constexpr int kWidestOfWarp = 1024;  // elements
constexpr int kMostThreads = 512;
constexpr int kBlocksPerSm = 2;  // of the backward kernel

// Threads (x: within a row, y: rows) and how many vectors of 8 elements each thread holds.
struct BlockShape {
  dim3 threads;
  int vectors;
};

BlockShape block_shape(int64_t size, int vectors_of_block) {
  const auto vectors = static_cast<int>(size / 8);
  if (size <= kWidestOfWarp) {
    return {dim3(kWarp, kRowsOfWarps), size <= 256 ? 1 : size <= 512 ? 2 : 4};
  }
  const int threads = (vectors + vectors_of_block - 1) / vectors_of_block;
  return {dim3((threads + kWarp - 1) / kWarp * kWarp), vectors_of_block};
}

// The sum over a row's threads, in every one of them and in the same order on every run. `partial`
// must not be the array of the call before: a slow warp may still read that.
template <bool kOneWarp>
__device__ float sum_over_row(float x, float* partial) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  }
  if constexpr (kOneWarp) return x;
  if (threadIdx.x % kWarp == 0) partial[threadIdx.x / kWarp] = x;
  __syncthreads();
  float total = 0;
  for (int warp = 0; warp < blockDim.x / kWarp; ++warp) total += partial[warp];
  return total;
}

template <int kVectors, bool kOneWarp>
__global__ void __launch_bounds__(kOneWarp ? kWarp* kRowsOfWarps : kMostThreads, kOneWarp ? 4 : 3)
    rms_norm_forward_kernel(const RmsNormForward args) {
  __shared__ float partial[kMostThreads / kWarp];
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= args.rows) return;  // a whole warp, or nobody
  const int num_vectors = args.size / 8;
  const auto* x = static_cast<const uint4*>(args.x) + row * args.x_stride / 8;
  const auto* delta = static_cast<const uint4*>(args.delta) + row * args.delta_stride / 8;
  const auto* weight = static_cast<const uint4*>(args.weight);
  uint4 packed[kVectors], packed_weight[kVectors], packed_delta[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = v * blockDim.x + threadIdx.x;
    packed[v] = packed_weight[v] = packed_delta[v] = make_uint4(0, 0, 0, 0);
    if (column >= num_vectors) continue;
    packed[v] = x[column];
    if (args.delta != nullptr) packed_delta[v] = delta[column];
    packed_weight[v] = weight[column];
  }
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = v * blockDim.x + threadIdx.x;
    float a[8], b[8];
    unpack(packed[v], a);
    if (args.delta != nullptr) {
      unpack(packed_delta[v], b);
#pragma unroll
      for (int i = 0; i < 8; ++i) a[i] += b[i];
      packed[v] = pack(a);
      unpack(packed[v], a);  // what is normed is what the sum's other readers see
      if (column < num_vectors) {
        static_cast<uint4*>(args.sum)[row * num_vectors + column] = packed[v];
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) squares += a[i] * a[i];
  }
  const float mean = sum_over_row<kOneWarp>(squares, partial) / static_cast<float>(args.size);
  const float scale = rsqrtf(mean + args.eps);
  if (threadIdx.x == 0) args.inverse_rms[row] = scale;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = v * blockDim.x + threadIdx.x;
    if (column >= num_vectors) continue;
    float a[8], w[8];
    unpack(packed[v], a);
    unpack(packed_weight[v], w);
#pragma unroll
    for (int i = 0; i < 8; ++i) a[i] *= scale * w[i];
    static_cast<uint4*>(args.y)[row * num_vectors + column] = pack(a);
  }
}

// What rows on their way from memory occupy, in units of 16 bytes a thread and vector: so many rows
// of d_y, d_sum and x, and the weight. Fits kBlocksPerSm times on a multiprocessor.
template <int kVectors, bool kOneWarp>
constexpr int kStages = kVectors == (kOneWarp ? 4 : 2) ? 2 : 4;

// Sums the blocks' rows of accumulators and writes one row of d_weight_parts. `memory` holds
// blockDim.y rows of `size` floats.
template <int kVectors>
__device__ void write_part(const RmsNormBackward& args, const float (&sums)[kVectors][8],
                           float* memory) {
  float* part = args.d_weight_parts + int64_t{blockIdx.x} * args.size;
  float* row = blockDim.y == 1 ? part : memory + threadIdx.y * args.size;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = v * blockDim.x + threadIdx.x;
    if (column >= args.size / 8) continue;
    auto* out = reinterpret_cast<float4*>(row + column * 8);
    out[0] = make_float4(sums[v][0], sums[v][1], sums[v][2], sums[v][3]);
    out[1] = make_float4(sums[v][4], sums[v][5], sums[v][6], sums[v][7]);
  }
  if (blockDim.y == 1) return;
  __syncthreads();
  const int threads = blockDim.x * blockDim.y;
  for (int i = threadIdx.y * blockDim.x + threadIdx.x; i < args.size; i += threads) {
    float total = 0;
    for (int y = 0; y < blockDim.y; ++y) total += memory[y * args.size + i];
    part[i] = total;
  }
}

// A block goes through rows and keeps its part of the weight's gradient in registers. Rows to come
// are copied into shared memory meanwhile; every thread reads there only what itself has copied.
template <int kVectors, bool kOneWarp>
__global__ void __launch_bounds__(kOneWarp ? kWarp* kRowsOfWarps : kMostThreads, kBlocksPerSm)
    rms_norm_backward_kernel(const RmsNormBackward args) {
  constexpr int kDepth = kStages<kVectors, kOneWarp>;
  extern __shared__ uint4 norm_memory[];
  __shared__ float partial[2][kMostThreads / kWarp];
  const int threads = blockDim.x * blockDim.y;
  const int num_vectors = args.size / 8;
  const int64_t first = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  const int64_t step = int64_t{gridDim.x} * blockDim.y;
  // [stage][d_y, x, d_sum][vector][thread]; behind them the weight, [vector][thread].
  uint4* const own = norm_memory + threadIdx.y * blockDim.x + threadIdx.x;
  uint4* const own_weight = own + kDepth * 3 * kVectors * threads;
  const auto copy_row = [&](int64_t row, int stage) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = v * blockDim.x + threadIdx.x;
      if (row >= args.rows || column >= num_vectors) continue;
      const auto copy = [&](const void* rows, int64_t stride, int tensor) {
        __pipeline_memcpy_async(own + ((stage * 3 + tensor) * kVectors + v) * threads,
                                static_cast<const uint4*>(rows) + row * stride / 8 + column, 16);
      };
      copy(args.d_y, args.d_y_stride, 0);
      copy(args.x, args.x_stride, 1);
      if (args.d_sum != nullptr) copy(args.d_sum, args.d_sum_stride, 2);
    }
    __pipeline_commit();
  };
#pragma unroll
  for (int i = 0; i < kDepth - 1; ++i) copy_row(first + i * step, i);
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int column = v * blockDim.x + threadIdx.x;
    if (column >= num_vectors) continue;
    own_weight[v * threads] = static_cast<const uint4*>(args.weight)[column];
  }
  float sums[kVectors][8] = {};
  float next_scale = first < args.rows ? args.inverse_rms[first] : 0.0f;
  int turn = 0;
  for (int64_t row = first; row < args.rows; row += step, ++turn) {
    copy_row(row + (kDepth - 1) * step, (turn + kDepth - 1) % kDepth);
    const float scale = next_scale;
    if (row + step < args.rows) next_scale = args.inverse_rms[row + step];
    __pipeline_wait_prior(kDepth - 1);
    const uint4* const stage = own + turn % kDepth * 3 * kVectors * threads;
    uint4 packed_d[kVectors], packed_x[kVectors];
    float dot = 0;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      if (v * blockDim.x + threadIdx.x >= num_vectors) continue;
      packed_d[v] = stage[v * threads];
      packed_x[v] = stage[(kVectors + v) * threads];
      float d[8], x[8], w[8];
      unpack(packed_d[v], d);
      unpack(packed_x[v], x);
      unpack(own_weight[v * threads], w);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        dot += d[i] * w[i] * x[i];
        sums[v][i] += d[i] * (x[i] * scale);
      }
    }
    dot = sum_over_row<kOneWarp>(dot, partial[turn % 2]);
    // The gradient is scale (d w - normed mean(d w normed)), with normed = scale x.
    const float along = scale * scale * scale * dot / static_cast<float>(args.size);
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      const int column = v * blockDim.x + threadIdx.x;
      if (column >= num_vectors) continue;
      float d[8], x[8], w[8], d_x[8];
      unpack(packed_d[v], d);
      unpack(packed_x[v], x);
      unpack(own_weight[v * threads], w);
#pragma unroll
      for (int i = 0; i < 8; ++i) d_x[i] = scale * d[i] * w[i] - along * x[i];
      if (args.d_sum != nullptr) {
        unpack(stage[(2 * kVectors + v) * threads], d);
#pragma unroll
        for (int i = 0; i < 8; ++i) d_x[i] += d[i];
      }
      static_cast<uint4*>(args.d_x)[row * num_vectors + column] = pack(d_x);
    }
  }
  __pipeline_wait_prior(0);
  __syncthreads();  // nobody reads rows any more: write_part() takes their memory
  write_part(args, sums, reinterpret_cast<float*>(norm_memory));
}

template <int kVectors, bool kOneWarp>
void launch_forward(const RmsNormForward& args, dim3 threads, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>((args.rows + threads.y - 1) / threads.y);
  rms_norm_forward_kernel<kVectors, kOneWarp><<<blocks, threads, 0, stream>>>(args);
}

template <int kVectors, bool kOneWarp>
void launch_backward(const RmsNormBackward& args, dim3 threads, cudaStream_t stream) {
  const auto kernel = rms_norm_backward_kernel<kVectors, kOneWarp>;
  const auto bytes = static_cast<int>((3 * kStages<kVectors, kOneWarp> + 1) * kVectors * threads.x *
                                      threads.y * sizeof(uint4));
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
             "cudaFuncSetAttribute");
  const auto blocks = static_cast<unsigned>(rms_norm_parts(args.rows, args.size));
  kernel<<<blocks, threads, bytes, stream>>>(args);
}

constexpr int kForwardVectors = 2;  // of a block that holds one row
int backward_vectors(int64_t size) {
  return size <= 8 * kMostThreads ? 1 : 2;
}

}  // namespace

void launch_rms_norm_forward(const RmsNormForward& args, cudaStream_t stream) {
  const BlockShape shape = block_shape(args.size, kForwardVectors);
  const auto launch = args.size > kWidestOfWarp ? launch_forward<kForwardVectors, false>
                      : shape.vectors == 1      ? launch_forward<1, true>
                      : shape.vectors == 2      ? launch_forward<2, true>
                                                : launch_forward<4, true>;
  launch(args, shape.threads, stream);
  check_cuda(cudaGetLastError(), "rms_norm_forward_kernel");
}

int64_t rms_norm_parts(int64_t rows, int64_t size) {
  const int64_t rows_of_block = size > kWidestOfWarp ? 1 : kRowsOfWarps;
  return even_grid((rows + rows_of_block - 1) / rows_of_block,
                   kBlocksPerSm * num_multiprocessors());
}

void launch_rms_norm_backward(const RmsNormBackward& args, cudaStream_t stream) {
  const BlockShape shape = block_shape(args.size, backward_vectors(args.size));
  if (args.size > kWidestOfWarp) {
    const auto launch = shape.vectors == 1 ? launch_backward<1, false> : launch_backward<2, false>;
    launch(args, shape.threads, stream);
  } else {
    const auto launch = shape.vectors == 1   ? launch_backward<1, true>
                        : shape.vectors == 2 ? launch_backward<2, true>
                                             : launch_backward<4, true>;
    launch(args, shape.threads, stream);
  }
  check_cuda(cudaGetLastError(), "rms_norm_backward_kernel");
}

}  // namespace moetron
