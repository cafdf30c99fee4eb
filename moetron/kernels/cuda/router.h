// Launches of the kernels of router.h.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "moetron/kernels/router_rule.h"

namespace moetron {

constexpr int kMostExperts = 512;

struct RouterForward {
  const void* logits;  // [tokens, num_experts] bf16 or fp32
  bool is_bf16;
  const float* bias;       // [num_experts]; null for none
  const int64_t* earlier;  // [tokens, top_k]; null where the choice is to be made
  float* scores;           // [tokens, num_experts]
  int64_t* chosen;         // [tokens, top_k], written unless there is an earlier choice
  float* weights;          // [tokens, top_k]
  int64_t* counts;         // [num_experts], added to
  int64_t tokens;
  int64_t num_counted;
  int num_experts;
  RouterRule rule;
};
void launch_router_forward(const RouterForward& args, cudaStream_t stream);

struct RouterBackward {
  const float* d_weights;  // [tokens, top_k]; null for zeros
  const float* d_scores;   // [tokens, num_experts]; null for zeros
  const float* scores;     // [tokens, num_experts]
  const int64_t* chosen;   // [tokens, top_k]
  void* d_logits;          // [tokens, num_experts] bf16 or fp32
  bool is_bf16;
  int64_t tokens;
  int num_experts;
  RouterRule rule;
};
void launch_router_backward(const RouterBackward& args, cudaStream_t stream);

}  // namespace moetron
