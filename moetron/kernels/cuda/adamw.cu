// Compiled without fused multiply-adds: the bits are those of the loop on the host.
#include <cuda_bf16.h>

#include "moetron/kernels/cuda/adamw.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {
namespace {

constexpr int kThreads = 256;
constexpr int kVectors = 2;  // a thread and array: eight loads of 16 bytes are under way together

struct alignas(16) Floats {
  float x[4];
};
struct alignas(8) Halves {
  __nv_bfloat16 x[4];
};

__device__ float update(float value, float& exp_avg, float& exp_avg_sq, float grad,
                        const AdamWCoefficients& c) {
  const float g = grad * c.grad_scale;
  exp_avg = exp_avg + c.one_minus_beta1 * (g - exp_avg);
  exp_avg_sq = exp_avg_sq * c.beta2 + c.one_minus_beta2 * g * g;
  return value * c.keep + c.minus_step_size * exp_avg / (sqrtf(exp_avg_sq) + c.eps);
}

// The first 4 * num_vectors elements as vectors, the others one by one.
template <bool kRounds>
__global__ void __launch_bounds__(kThreads) adamw_kernel(const AdamWPointers p, int64_t num_vectors,
                                                         int64_t count, const AdamWCoefficients c) {
  const int64_t first = int64_t{blockIdx.x} * kThreads * kVectors + threadIdx.x;
  auto* const values = reinterpret_cast<Floats*>(p.value);
  auto* const exp_avgs = reinterpret_cast<Floats*>(p.exp_avg);
  auto* const exp_avg_sqs = reinterpret_cast<Floats*>(p.exp_avg_sq);
  const auto* const grads = reinterpret_cast<const Floats*>(p.grad);
  Floats value[kVectors], exp_avg[kVectors], exp_avg_sq[kVectors], grad[kVectors];
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t i = first + v * kThreads;
    if (i >= num_vectors) continue;
    grad[v] = grads[i];
    exp_avg[v] = exp_avgs[i];
    exp_avg_sq[v] = exp_avg_sqs[i];
    value[v] = values[i];
  }
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    const int64_t i = first + v * kThreads;
    if (i >= num_vectors) continue;
    Halves rounded;
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      value[v].x[k] = update(value[v].x[k], exp_avg[v].x[k], exp_avg_sq[v].x[k], grad[v].x[k], c);
      if constexpr (kRounds) rounded.x[k] = __float2bfloat16_rn(value[v].x[k]);
    }
    exp_avgs[i] = exp_avg[v];
    exp_avg_sqs[i] = exp_avg_sq[v];
    values[i] = value[v];
    if constexpr (kRounds) reinterpret_cast<Halves*>(p.rounded)[i] = rounded;
  }
  const int64_t num_threads = int64_t{gridDim.x} * kThreads;
  for (int64_t i = 4 * num_vectors + int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count;
       i += num_threads) {
    p.value[i] = update(p.value[i], p.exp_avg[i], p.exp_avg_sq[i], p.grad[i], c);
    if constexpr (kRounds) {
      reinterpret_cast<__nv_bfloat16*>(p.rounded)[i] = __float2bfloat16_rn(p.value[i]);
    }
  }
}

bool begins_at_multiple(const void* address, uintptr_t bytes) {
  return reinterpret_cast<uintptr_t>(address) % bytes == 0;
}

}  // namespace

void launch_adamw(const AdamWPointers& p, int64_t count, const AdamWCoefficients& c,
                  cudaStream_t stream) {
  const bool aligned = begins_at_multiple(p.value, 16) && begins_at_multiple(p.exp_avg, 16) &&
                       begins_at_multiple(p.exp_avg_sq, 16) && begins_at_multiple(p.grad, 16) &&
                       begins_at_multiple(p.rounded, 8);
  constexpr int64_t kTile = int64_t{kThreads} * kVectors * 4;
  const auto blocks = static_cast<unsigned>((count + kTile - 1) / kTile);
  const auto kernel = p.rounded != nullptr ? adamw_kernel<true> : adamw_kernel<false>;
  kernel<<<blocks, kThreads, 0, stream>>>(p, aligned ? count / 4 : 0, count, c);
  check_cuda(cudaGetLastError(), "adamw_kernel");
}

}  // namespace moetron
