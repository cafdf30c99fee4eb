// Launches of the kernels of heads.h. All pointers are of bf16 unless typed. Strides count
// elements; heads and what is rotated of them begin at multiples of 16 bytes.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

constexpr int kWidestRotation = 256;  // rotated elements of a head; a multiple of 16

struct RotationArgs {
  const int64_t* positions;          // [tokens]
  const float* inverse_frequencies;  // [rotated elements / 2]
  float scale;
  bool neighbours;
};

struct NormRotateForward {
  const void* qkv;     // [tokens, N + 2 G, D]
  const void* q_norm;  // [D]; null for none, as is k_norm then
  const void* k_norm;
  void* q;             // [tokens, N, D]
  void* k;             // [tokens, G, D]
  float* inverse_rms;  // [tokens, N + G]
  int64_t tokens;
  int num_heads;     // N
  int num_kv_heads;  // G
  int head_dim;      // D, 64 or 128
  float eps;
  RotationArgs rotation;
};
void launch_norm_rotate_forward(const NormRotateForward& args, cudaStream_t stream);

struct NormRotateBackward {
  const void* d_q;  // tokens of [N, D], a stride apart
  int64_t d_q_stride;
  const void* d_k;  // of [G, D]
  int64_t d_k_stride;
  const void* d_v;
  int64_t d_v_stride;
  const void* qkv;
  const float* inverse_rms;
  const void* q_norm;  // null for none, as is k_norm then
  const void* k_norm;
  void* d_qkv;            // [tokens, N + 2 G, D]
  float* d_q_norm_parts;  // [norm_rotate_parts(...), D]
  float* d_k_norm_parts;
  int64_t tokens;
  int num_heads;
  int num_kv_heads;
  int head_dim;
  RotationArgs rotation;
};
int64_t norm_rotate_parts(int64_t tokens, int num_heads, int num_kv_heads, int head_dim);
void launch_norm_rotate_backward(const NormRotateBackward& args, cudaStream_t stream);

struct RotateInPlace {
  void* x;  // the first element to rotate
  int64_t token_stride;
  int64_t head_stride;
  int64_t tokens;
  int heads;
  int rotated;
  bool is_gradient;
  RotationArgs rotation;
};
void launch_rotate_in_place(const RotateInPlace& args, cudaStream_t stream);

struct LatentKeysForward {
  const void* up;      // [tokens, N, nope + V]
  const void* k_rope;  // tokens of [rope], a stride apart
  int64_t k_rope_stride;
  void* keys;    // [tokens, N, nope + rope]
  void* values;  // [tokens, N, V]
  int64_t tokens;
  int heads;
  int nope;
  int rope;  // a power of two
  int value_dim;
  RotationArgs rotation;
};
void launch_latent_keys_forward(const LatentKeysForward& args, cudaStream_t stream);

struct LatentKeysBackward {
  const void* d_keys;
  int64_t d_keys_token_stride;
  int64_t d_keys_head_stride;
  const void* d_values;
  int64_t d_values_token_stride;
  int64_t d_values_head_stride;
  void* d_up;      // [tokens, N, nope + V]
  void* d_k_rope;  // [tokens, rope]
  int64_t tokens;
  int heads;
  int nope;
  int rope;
  int value_dim;
  RotationArgs rotation;
};
void launch_latent_keys_backward(const LatentKeysBackward& args, cudaStream_t stream);

}  // namespace moetron
