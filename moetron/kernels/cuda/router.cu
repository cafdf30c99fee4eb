// A warp a token. Expert e belongs to lane e % 32, which holds kPerLane of them in registers.
#include <cuda_bf16.h>

#include <climits>

#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/router.h"

namespace moetron {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a block
constexpr int kBlocksPerSm = 8;
constexpr unsigned kAll = 0xffffffffu;
constexpr unsigned kTaken = 0;  // less than every number's key

__device__ float sum_over_warp(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(kAll, x, offset);
  return x;
}

__device__ float max_over_warp(float x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    x = fmaxf(x, __shfl_xor_sync(kAll, x, offset));
  }
  return x;
}

// Keys are ordered as the numbers are; both zeros have one.
__device__ unsigned key_of(float x) {
  const unsigned bits = __float_as_uint(x == 0.0f ? 0.0f : x);
  return bits ^ (bits >> 31 != 0 ? kAll : 0x80000000u);
}

// The number of the lanes' largest key; among equals the lowest number.
__device__ int lowest_of_largest(unsigned key, int number) {
  const unsigned largest = __reduce_max_sync(kAll, key);
  return __reduce_min_sync(kAll, key == largest ? number : INT_MAX);
}

template <int kPerLane>
__device__ void to_scores(float (&x)[kPerLane], int num_experts, bool sigmoid) {
  if (sigmoid) {
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) x[j] = 1.0f / (1.0f + expf(-x[j]));
    return;
  }
  const int lane = threadIdx.x;
  float largest = -INFINITY, sum = 0;
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    if (j * kWarp + lane < num_experts) largest = fmaxf(largest, x[j]);
  }
  largest = max_over_warp(largest);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    x[j] = j * kWarp + lane < num_experts ? expf(x[j] - largest) : 0.0f;
    sum += x[j];
  }
  sum = sum_over_warp(sum);
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) x[j] /= sum;
}

// Marks the best groups' keys as taken. ranked [num_experts], group_keys [num_groups]: shared
// memory.
__device__ void take_groups(const float* ranked, unsigned* group_keys, int num_experts,
                            const RouterRule& rule) {
  const int lane = threadIdx.x;
  const auto num_groups = static_cast<int>(rule.num_groups);
  const int size = num_experts / num_groups;
  for (int g = lane; g < num_groups; g += kWarp) {
    float best = -INFINITY, second = -INFINITY;
    for (int i = 0; i < size; ++i) {
      const float x = ranked[g * size + i];
      second = fmaxf(second, fminf(best, x));
      best = fmaxf(best, x);
    }
    group_keys[g] = key_of(rule.group_score_top_two ? best + second : best);
  }
  for (int n = 0; n < rule.group_top_k; ++n) {
    __syncwarp();
    unsigned key = kTaken;
    int group = INT_MAX;
    for (int g = lane; g < num_groups; g += kWarp) {
      if (group_keys[g] <= key) continue;
      key = group_keys[g];
      group = g;
    }
    const int winner = lowest_of_largest(key, group);
    if (winner % kWarp == lane) group_keys[winner] = kTaken;
  }
  __syncwarp();
}

// Writes the numbers of the best experts, best first, to slots [top_k]. memory: two arrays of
// num_experts words.
template <int kPerLane>
__device__ void choose(const float (&scores)[kPerLane], const float* bias, int num_experts,
                       const RouterRule& rule, unsigned* memory, int* slots) {
  const int lane = threadIdx.x;
  float ranked[kPerLane];
  unsigned keys[kPerLane];
#pragma unroll
  for (int j = 0; j < kPerLane; ++j) {
    const int expert = j * kWarp + lane;
    keys[j] = kTaken;
    if (expert >= num_experts) continue;
    ranked[j] = scores[j] + (bias != nullptr ? bias[expert] : 0.0f);
    keys[j] = key_of(ranked[j]);
  }
  if (rule.num_groups > rule.group_top_k) {
    auto* const shared_ranked = reinterpret_cast<float*>(memory);
    unsigned* const group_keys = memory + num_experts;
    const int group_size = num_experts / static_cast<int>(rule.num_groups);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      if (expert < num_experts) shared_ranked[expert] = ranked[j];
    }
    __syncwarp();
    take_groups(shared_ranked, group_keys, num_experts, rule);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      if (expert >= num_experts) continue;
      if (group_keys[expert / group_size] != kTaken) keys[j] = key_of(-INFINITY);
    }
  }
  for (int n = 0; n < rule.top_k; ++n) {
    unsigned key = kTaken;
    int expert = INT_MAX;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (keys[j] <= key) continue;
      key = keys[j];
      expert = j * kWarp + lane;
    }
    const int winner = lowest_of_largest(key, expert);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      if (j * kWarp + lane == winner) keys[j] = kTaken;
    }
    if (lane == 0) slots[n] = winner;
  }
}

// Of shared memory: scores, slots, and the two arrays of choose().
__host__ __device__ int words_of_warp(int num_experts) {
  return 4 * num_experts;
}

template <int kPerLane>
__global__ void __launch_bounds__(kWarp* kWarps) router_forward_kernel(const RouterForward args) {
  extern __shared__ unsigned router_memory[];
  const int num_experts = args.num_experts, lane = threadIdx.x;
  const auto top_k = static_cast<int>(args.rule.top_k);
  const auto eps = static_cast<float>(args.rule.normalize_eps);
  const auto scaling = static_cast<float>(args.rule.scaling);
  unsigned* const counts = router_memory;  // [num_experts]
  unsigned* const own = counts + num_experts + threadIdx.y * words_of_warp(num_experts);
  auto* const scores = reinterpret_cast<float*>(own);             // [num_experts]
  auto* const slots = reinterpret_cast<int*>(own + num_experts);  // [top_k]
  const int thread = threadIdx.y * kWarp + lane;
  for (int e = thread; e < num_experts; e += kWarp * kWarps) counts[e] = 0;
  __syncthreads();
  for (int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.y; token < args.tokens;
       token += int64_t{gridDim.x} * kWarps) {
    float x[kPerLane];
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      x[j] = 0;
      if (expert >= num_experts) continue;
      const int64_t place = token * num_experts + expert;
      x[j] = args.is_bf16 ? __bfloat162float(static_cast<const __nv_bfloat16*>(args.logits)[place])
                          : static_cast<const float*>(args.logits)[place];
    }
    to_scores(x, num_experts, args.rule.sigmoid);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      if (expert >= num_experts) continue;
      args.scores[token * num_experts + expert] = x[j];
      scores[expert] = x[j];
    }
    if (args.earlier == nullptr) {
      choose(x, args.bias, num_experts, args.rule, own + 2 * num_experts, slots);
    } else {
      for (int k = lane; k < top_k; k += kWarp) {
        slots[k] = static_cast<int>(args.earlier[token * top_k + k]);
      }
    }
    __syncwarp();
    float sum = 0;
    for (int k = lane; k < top_k; k += kWarp) sum += scores[slots[k]];
    sum = sum_over_warp(sum) + eps;
    for (int k = lane; k < top_k; k += kWarp) {
      const int expert = slots[k];
      const float score = scores[expert];
      args.weights[token * top_k + k] = (args.rule.normalize ? score / sum : score) * scaling;
      if (args.earlier == nullptr) args.chosen[token * top_k + k] = expert;
      if (token < args.num_counted) atomicAdd(&counts[expert], 1u);
    }
    __syncwarp();
  }
  __syncthreads();
  for (int e = thread; e < num_experts; e += kWarp * kWarps) {
    if (counts[e] == 0) continue;
    atomicAdd(reinterpret_cast<unsigned long long*>(args.counts) + e,
              static_cast<unsigned long long>(counts[e]));
  }
}

// The gradient of the chosen scores, by way of the weights, added to d_scores [num_experts] in
// shared memory.
__device__ void add_chosen_grads(const RouterBackward& args, int64_t token, float* d_scores) {
  const int lane = threadIdx.x;
  const auto top_k = static_cast<int>(args.rule.top_k);
  const float* const scores = args.scores + token * args.num_experts;
  const float* const d_weights = args.d_weights + token * top_k;
  const int64_t* const chosen = args.chosen + token * top_k;
  auto factor = static_cast<float>(args.rule.scaling);
  float along = 0;
  if (args.rule.normalize) {
    // weight = scaling score / sum: the gradient is scaling / sum (d_weight - d_weights scores /
    // sum).
    float sum = 0;
    for (int k = lane; k < top_k; k += kWarp) {
      const float score = scores[chosen[k]];
      sum += score;
      along += d_weights[k] * score;
    }
    sum = sum_over_warp(sum) + static_cast<float>(args.rule.normalize_eps);
    along = sum_over_warp(along) / sum;
    factor /= sum;
  }
  for (int k = lane; k < top_k; k += kWarp) {
    d_scores[chosen[k]] += factor * (d_weights[k] - along);  // each expert once
  }
}

template <int kPerLane>
__global__ void __launch_bounds__(kWarp* kWarps) router_backward_kernel(const RouterBackward args) {
  extern __shared__ float router_grads[];
  const int num_experts = args.num_experts, lane = threadIdx.x;
  float* const d_scores = router_grads + threadIdx.y * num_experts;
  for (int64_t token = int64_t{blockIdx.x} * kWarps + threadIdx.y; token < args.tokens;
       token += int64_t{gridDim.x} * kWarps) {
    const int64_t first = token * num_experts;
    float scores[kPerLane], d[kPerLane];
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      scores[j] = 0;
      if (expert >= num_experts) continue;
      scores[j] = args.scores[first + expert];
      d_scores[expert] = args.d_scores != nullptr ? args.d_scores[first + expert] : 0.0f;
    }
    __syncwarp();
    if (args.d_weights != nullptr) add_chosen_grads(args, token, d_scores);
    __syncwarp();
    float dot = 0;
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      d[j] = expert < num_experts ? d_scores[expert] : 0.0f;
      dot += d[j] * scores[j];
    }
    dot = sum_over_warp(dot);
#pragma unroll
    for (int j = 0; j < kPerLane; ++j) {
      const int expert = j * kWarp + lane;
      if (expert >= num_experts) continue;
      const float d_logit =
          args.rule.sigmoid ? d[j] * scores[j] * (1.0f - scores[j]) : scores[j] * (d[j] - dot);
      if (args.is_bf16) {
        static_cast<__nv_bfloat16*>(args.d_logits)[first + expert] = __float2bfloat16_rn(d_logit);
      } else {
        static_cast<float*>(args.d_logits)[first + expert] = d_logit;
      }
    }
    __syncwarp();
  }
}

unsigned num_blocks(int64_t tokens) {
  return static_cast<unsigned>(
      even_grid((tokens + kWarps - 1) / kWarps, kBlocksPerSm * num_multiprocessors()));
}

}  // namespace

void launch_router_forward(const RouterForward& args, cudaStream_t stream) {
  const int words = args.num_experts + kWarps * words_of_warp(args.num_experts);
  const auto kernel = args.num_experts <= 32    ? router_forward_kernel<1>
                      : args.num_experts <= 64  ? router_forward_kernel<2>
                      : args.num_experts <= 128 ? router_forward_kernel<4>
                      : args.num_experts <= 256 ? router_forward_kernel<8>
                                                : router_forward_kernel<16>;
  kernel<<<num_blocks(args.tokens), dim3(kWarp, kWarps), words * sizeof(unsigned), stream>>>(args);
  check_cuda(cudaGetLastError(), "router_forward_kernel");
}

void launch_router_backward(const RouterBackward& args, cudaStream_t stream) {
  const int words = kWarps * args.num_experts;
  const auto kernel = args.num_experts <= 32    ? router_backward_kernel<1>
                      : args.num_experts <= 64  ? router_backward_kernel<2>
                      : args.num_experts <= 128 ? router_backward_kernel<4>
                      : args.num_experts <= 256 ? router_backward_kernel<8>
                                                : router_backward_kernel<16>;
  kernel<<<num_blocks(args.tokens), dim3(kWarp, kWarps), words * sizeof(float), stream>>>(args);
  check_cuda(cudaGetLastError(), "router_backward_kernel");
}

}  // namespace moetron
