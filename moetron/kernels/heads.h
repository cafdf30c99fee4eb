// What stands between the projections and the attention, for bf16 on a GPU: norms of heads, rotary
// positions (Su et al., arXiv 2104.09864) and the joining of latent attention's keys, one kernel
// each. nn/ has the same of operators for everything else.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>

namespace moetron {

// The rotation of a pair of elements: position * inverse frequency, cos and sin times `scale`.
struct Rotation {
  at::Tensor positions;            // [tokens] int64
  at::Tensor inverse_frequencies;  // [rotated elements / 2] fp32
  double scale = 1;
  bool neighbours = false;  // pairs (2i, 2i + 1); else (i, i + rotated elements / 2)
};

// Whether norm_rotate_forward and _backward take qkv: bf16 on a GPU, heads of 64 or 128 elements,
// and a build with CUDA.
bool has_norm_rotate(const at::Tensor& qkv);
// Whether rotate_in_place and the functions of latent keys take q and up, heads last: bf16 on a
// GPU, `rope` a power of two from 16 to 256, the widths of the other parts multiples of 8.
bool has_latent_heads(const at::Tensor& q, const at::Tensor& up, int64_t rope);

struct NormedHeads {
  at::Tensor q;            // [tokens, N, D]
  at::Tensor k;            // [tokens, G, D]
  at::Tensor inverse_rms;  // [tokens, N + G] fp32; undefined without norms
};

// qkv [tokens, N + 2 G, D], queries first, values last; norms [D], undefined for none. All of a
// head is rotated: D / 2 inverse frequencies. D is 64 or 128.
NormedHeads norm_rotate_forward(const at::Tensor& qkv, int64_t num_heads, const at::Tensor& q_norm,
                                const at::Tensor& k_norm, double eps, const Rotation& rotation);

struct NormedHeadGrads {
  at::Tensor d_qkv;           // [tokens, N + 2 G, D], d_v copied into it
  at::Tensor d_q_norm_parts;  // [parts, D] fp32, their sum is the gradient; undefined without norms
  at::Tensor d_k_norm_parts;
};

// d_q [tokens, N, D], d_k and d_v [tokens, G, D], each contiguous in its last two dimensions.
NormedHeadGrads norm_rotate_backward(const at::Tensor& d_q, const at::Tensor& d_k,
                                     const at::Tensor& d_v, const at::Tensor& qkv,
                                     const at::Tensor& inverse_rms, const at::Tensor& q_norm,
                                     const at::Tensor& k_norm, const Rotation& rotation);

// Rotates the last `rotated` elements (a multiple of 16, at most 256) of every head of x [tokens,
// heads, width] in place; the other way round for a gradient. Heads begin at multiples of 16 bytes.
void rotate_in_place(const at::Tensor& x, int64_t rotated, const Rotation& rotation,
                     bool is_gradient);

struct LatentKeys {
  at::Tensor keys;    // [tokens, N, nope + rope]
  at::Tensor values;  // [tokens, N, V]
};

// up [tokens, N, nope + V] (contiguous), k_rope [tokens, rope] (rows may be strided): every head's
// key is its own part and the one rotated k_rope. nope and V are multiples of 8, rope is a power of
// two from 16 to 256.
LatentKeys latent_keys_forward(const at::Tensor& up, const at::Tensor& k_rope, int64_t nope,
                               const Rotation& rotation);

struct LatentKeyGrads {
  at::Tensor d_up;      // [tokens, N, nope + V]
  at::Tensor d_k_rope;  // [tokens, rope], summed over heads in fp32
};

LatentKeyGrads latent_keys_backward(const at::Tensor& d_keys, const at::Tensor& d_values,
                                    int64_t nope, const Rotation& rotation);

}  // namespace moetron
