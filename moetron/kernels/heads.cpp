#include "moetron/kernels/heads.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/heads.h"
#endif

namespace moetron {

bool has_norm_rotate(const at::Tensor& qkv) {
  return is_gpu_bf16(qkv) && (qkv.size(-1) == 64 || qkv.size(-1) == 128);
}

bool has_latent_heads(const at::Tensor& q, const at::Tensor& up, int64_t rope) {
  const bool is_power_of_two = (rope & (rope - 1)) == 0;
  return is_gpu_bf16(q) && is_gpu_bf16(up) && rope >= 16 && rope <= 256 && is_power_of_two &&
         (q.size(-1) - rope) % 8 == 0 && up.size(-1) % 8 == 0;
}

#ifdef MOETRON_CUDA
namespace {

// x [tokens, heads, width] whose heads, and all strides between them, are whole 16 bytes.
void check_heads(const at::Tensor& x, const char* name) {
  MT_CHECK(is_gpu_bf16(x) && x.dim() == 3 && x.stride(2) == 1, name, " is no bf16 [tokens, heads, ",
           "width] of a GPU, but ", x.toString(), " ", x.sizes(), " with strides ", x.strides());
  MT_CHECK(has_aligned_rows(x, x.size(2)) && x.stride(0) % 8 == 0 && x.stride(1) % 8 == 0, name,
           " of shape ", x.sizes(), " and strides ", x.strides(), " has heads off 16 bytes");
}

// As check_heads, with a token's heads one behind the other.
void check_packed_heads(const at::Tensor& x, const char* name) {
  check_heads(x, name);
  MT_CHECK(x.size(1) == 1 || x.stride(1) == x.size(2), name, " has strides ", x.strides(),
           " between heads of ", x.size(2));
}

RotationArgs rotation_args(const Rotation& rotation, int64_t tokens, int64_t rotated) {
  MT_CHECK(rotated % 16 == 0 && rotated <= kWidestRotation, rotated, " rotated elements");
  const at::Tensor &positions = rotation.positions, &frequencies = rotation.inverse_frequencies;
  MT_CHECK(positions.is_cuda() && positions.is_contiguous() && positions.numel() == tokens,
           "positions of shape ", positions.sizes(), " for ", tokens, " tokens");
  MT_CHECK(
      frequencies.is_cuda() && frequencies.is_contiguous() && frequencies.numel() == rotated / 2,
      frequencies.numel(), " inverse frequencies for ", rotated, " rotated elements");
  return {.positions = positions.const_data_ptr<int64_t>(),
          .inverse_frequencies = frequencies.const_data_ptr<float>(),
          .scale = static_cast<float>(rotation.scale),
          .neighbours = rotation.neighbours};
}

const void* norm_pointer(const at::Tensor& norm, int64_t head_dim) {
  if (!norm.defined()) return nullptr;
  MT_CHECK(is_gpu_bf16(norm) && norm.is_contiguous() && norm.numel() == head_dim &&
               has_aligned_rows(norm, head_dim),
           "a norm of shape ", norm.sizes(), " for heads of ", head_dim);
  return norm.const_data_ptr();
}

void check_qkv(const at::Tensor& qkv) {
  check_packed_heads(qkv, "qkv");
  MT_CHECK(qkv.is_contiguous(), "qkv has strides ", qkv.strides());
  MT_CHECK(qkv.size(2) == 64 || qkv.size(2) == 128, "heads of ", qkv.size(2));
}

// The parts of a head's key and value that the kernels take.
void check_parts(int64_t nope, int64_t rope, int64_t value_dim) {
  MT_CHECK(nope % 8 == 0 && value_dim % 8 == 0 && rope >= 16 && (rope & (rope - 1)) == 0,
           "heads of ", nope, " and ", rope, " elements with values of ", value_dim);
}

}  // namespace

NormedHeads norm_rotate_forward(const at::Tensor& qkv, int64_t num_heads, const at::Tensor& q_norm,
                                const at::Tensor& k_norm, double eps, const Rotation& rotation) {
  check_qkv(qkv);
  const int64_t tokens = qkv.size(0), dim = qkv.size(2);
  const int64_t num_kv_heads = (qkv.size(1) - num_heads) / 2;
  NormedHeads out{.q = at::empty({tokens, num_heads, dim}, qkv.options()),
                  .k = at::empty({tokens, num_kv_heads, dim}, qkv.options()),
                  .inverse_rms = {}};
  if (q_norm.defined()) {
    out.inverse_rms =
        at::empty({tokens, num_heads + num_kv_heads}, qkv.options().dtype(at::kFloat));
  }
  const NormRotateForward args{
      .qkv = qkv.const_data_ptr(),
      .q_norm = norm_pointer(q_norm, dim),
      .k_norm = norm_pointer(k_norm, dim),
      .q = out.q.mutable_data_ptr(),
      .k = out.k.mutable_data_ptr(),
      .inverse_rms = q_norm.defined() ? out.inverse_rms.mutable_data_ptr<float>() : nullptr,
      .tokens = tokens,
      .num_heads = static_cast<int>(num_heads),
      .num_kv_heads = static_cast<int>(num_kv_heads),
      .head_dim = static_cast<int>(dim),
      .eps = static_cast<float>(eps),
      .rotation = rotation_args(rotation, tokens, dim)};
  if (tokens > 0) launch_norm_rotate_forward(args, current_stream(qkv));
  return out;
}

NormedHeadGrads norm_rotate_backward(const at::Tensor& d_q, const at::Tensor& d_k,
                                     const at::Tensor& d_v, const at::Tensor& qkv,
                                     const at::Tensor& inverse_rms, const at::Tensor& q_norm,
                                     const at::Tensor& k_norm, const Rotation& rotation) {
  check_packed_heads(d_q, "d_q");
  check_packed_heads(d_k, "d_k");
  check_packed_heads(d_v, "d_v");
  const int64_t tokens = d_q.size(0), dim = d_q.size(2);
  const auto num_heads = static_cast<int>(d_q.size(1));
  const auto num_kv_heads = static_cast<int>(d_k.size(1)), head_dim = static_cast<int>(dim);
  NormedHeadGrads out{
      .d_qkv = at::empty({tokens, num_heads + 2 * num_kv_heads, dim}, d_q.options()),
      .d_q_norm_parts = {},
      .d_k_norm_parts = {}};
  NormRotateBackward args{.d_q = d_q.const_data_ptr(),
                          .d_q_stride = d_q.stride(0),
                          .d_k = d_k.const_data_ptr(),
                          .d_k_stride = d_k.stride(0),
                          .d_v = d_v.const_data_ptr(),
                          .d_v_stride = d_v.stride(0),
                          .d_qkv = out.d_qkv.mutable_data_ptr(),
                          .tokens = tokens,
                          .num_heads = num_heads,
                          .num_kv_heads = num_kv_heads,
                          .head_dim = head_dim,
                          .rotation = rotation_args(rotation, tokens, dim)};
  if (q_norm.defined()) {
    check_qkv(qkv);
    MT_CHECK(qkv.sizes() == out.d_qkv.sizes(), "qkv of shape ", qkv.sizes(), " for gradients of ",
             out.d_qkv.sizes());
    MT_CHECK(
        inverse_rms.is_contiguous() && inverse_rms.numel() == tokens * (num_heads + num_kv_heads),
        "inverse_rms of shape ", inverse_rms.sizes());
    const int64_t parts = norm_rotate_parts(tokens, num_heads, num_kv_heads, head_dim);
    out.d_q_norm_parts = at::empty({parts, dim}, d_q.options().dtype(at::kFloat));
    out.d_k_norm_parts = at::empty({parts, dim}, d_q.options().dtype(at::kFloat));
    args.qkv = qkv.const_data_ptr();
    args.inverse_rms = inverse_rms.const_data_ptr<float>();
    args.q_norm = norm_pointer(q_norm, dim);
    args.k_norm = norm_pointer(k_norm, dim);
    args.d_q_norm_parts = out.d_q_norm_parts.mutable_data_ptr<float>();
    args.d_k_norm_parts = out.d_k_norm_parts.mutable_data_ptr<float>();
  }
  if (tokens > 0) launch_norm_rotate_backward(args, current_stream(d_q));
  return out;
}

void rotate_in_place(const at::Tensor& x, int64_t rotated, const Rotation& rotation,
                     bool is_gradient) {
  check_heads(x, "x");
  const at::Tensor last = x.narrow(2, x.size(2) - rotated, rotated);
  check_heads(last, "what is rotated of x");
  if (x.numel() == 0) return;
  launch_rotate_in_place({.x = last.mutable_data_ptr(),
                          .token_stride = x.stride(0),
                          .head_stride = x.stride(1),
                          .tokens = x.size(0),
                          .heads = static_cast<int>(x.size(1)),
                          .rotated = static_cast<int>(rotated),
                          .is_gradient = is_gradient,
                          .rotation = rotation_args(rotation, x.size(0), rotated)},
                         current_stream(x));
}

LatentKeys latent_keys_forward(const at::Tensor& up, const at::Tensor& k_rope, int64_t nope,
                               const Rotation& rotation) {
  check_packed_heads(up, "up");
  const int64_t tokens = up.size(0), heads = up.size(1), value_dim = up.size(2) - nope;
  const int64_t rope = k_rope.size(1);
  check_parts(nope, rope, value_dim);
  MT_CHECK(up.is_contiguous(), "up has strides ", up.strides());
  MT_CHECK(
      is_gpu_bf16(k_rope) && k_rope.dim() == 2 && k_rope.stride(1) == 1 && k_rope.size(0) == tokens,
      "k_rope of shape ", k_rope.sizes(), " for ", tokens, " tokens");
  LatentKeys out{.keys = at::empty({tokens, heads, nope + rope}, up.options()),
                 .values = at::empty({tokens, heads, value_dim}, up.options())};
  if (tokens == 0) return out;
  launch_latent_keys_forward({.up = up.const_data_ptr(),
                              .k_rope = k_rope.const_data_ptr(),
                              .k_rope_stride = k_rope.stride(0),
                              .keys = out.keys.mutable_data_ptr(),
                              .values = out.values.mutable_data_ptr(),
                              .tokens = tokens,
                              .heads = static_cast<int>(heads),
                              .nope = static_cast<int>(nope),
                              .rope = static_cast<int>(rope),
                              .value_dim = static_cast<int>(value_dim),
                              .rotation = rotation_args(rotation, tokens, rope)},
                             current_stream(up));
  return out;
}

LatentKeyGrads latent_keys_backward(const at::Tensor& d_keys, const at::Tensor& d_values,
                                    int64_t nope, const Rotation& rotation) {
  check_heads(d_keys, "d_keys");
  check_heads(d_values, "d_values");
  const int64_t tokens = d_keys.size(0), heads = d_keys.size(1), value_dim = d_values.size(2);
  const int64_t rope = d_keys.size(2) - nope;
  check_parts(nope, rope, value_dim);
  LatentKeyGrads out{.d_up = at::empty({tokens, heads, nope + value_dim}, d_keys.options()),
                     .d_k_rope = at::empty({tokens, rope}, d_keys.options())};
  if (tokens == 0) return out;
  launch_latent_keys_backward({.d_keys = d_keys.const_data_ptr(),
                               .d_keys_token_stride = d_keys.stride(0),
                               .d_keys_head_stride = d_keys.stride(1),
                               .d_values = d_values.const_data_ptr(),
                               .d_values_token_stride = d_values.stride(0),
                               .d_values_head_stride = d_values.stride(1),
                               .d_up = out.d_up.mutable_data_ptr(),
                               .d_k_rope = out.d_k_rope.mutable_data_ptr(),
                               .tokens = tokens,
                               .heads = static_cast<int>(heads),
                               .nope = static_cast<int>(nope),
                               .rope = static_cast<int>(rope),
                               .value_dim = static_cast<int>(value_dim),
                               .rotation = rotation_args(rotation, tokens, rope)},
                              current_stream(d_keys));
  return out;
}
#else
namespace {

[[noreturn]] void refuse_heads() {
  throw InternalError("kernels of heads in a build without CUDA");
}

}  // namespace

NormedHeads norm_rotate_forward(const at::Tensor&, int64_t, const at::Tensor&, const at::Tensor&,
                                double, const Rotation&) {
  refuse_heads();
}

NormedHeadGrads norm_rotate_backward(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                     const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                     const at::Tensor&, const Rotation&) {
  refuse_heads();
}

void rotate_in_place(const at::Tensor&, int64_t, const Rotation&, bool) {
  refuse_heads();
}

LatentKeys latent_keys_forward(const at::Tensor&, const at::Tensor&, int64_t, const Rotation&) {
  refuse_heads();
}

LatentKeyGrads latent_keys_backward(const at::Tensor&, const at::Tensor&, int64_t,
                                    const Rotation&) {
  refuse_heads();
}
#endif

}  // namespace moetron
