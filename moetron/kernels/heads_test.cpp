#include "moetron/kernels/heads.h"

#include "moetron/base/error.h"
#include "moetron/kernels/kernel_test_support.h"

namespace moetron {
namespace {

constexpr double kEps = 1e-6;
constexpr double kBf16 = 4e-3;  // of results rounded once: half a unit in the last place
constexpr double kFp32 = 1e-5;

Rotation make_rotation(int64_t tokens, int64_t rotated, bool neighbours) {
  const auto gpu = at::TensorOptions(at::kCUDA);
  const at::Tensor exponents = at::arange(rotated / 2, gpu.dtype(at::kFloat)).div(rotated / 2.0);
  return {.positions = at::randint(5000, {tokens}, gpu.dtype(at::kLong)),
          .inverse_frequencies = at::pow(10000.0, exponents).reciprocal(),
          .scale = neighbours ? 1.25 : 1.0,
          .neighbours = neighbours};
}

// x [tokens, heads, rotated] fp64, turned.
at::Tensor turned(const at::Tensor& x, const Rotation& rotation) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor angles = rotation.positions.to(at::kFloat)
                                .unsqueeze(1)
                                .mul(rotation.inverse_frequencies)
                                .to(at::kDouble)
                                .unsqueeze(1);  // [tokens, 1, half]
  const at::Tensor cos = angles.cos().mul(rotation.scale), sin = angles.sin().mul(rotation.scale);
  const at::Tensor pairs =
      rotation.neighbours ? x.unflatten(2, {half, 2}) : x.unflatten(2, {2, half}).transpose(2, 3);
  const at::Tensor a = pairs.select(3, 0), b = pairs.select(3, 1);
  const at::Tensor out = at::stack({a * cos - b * sin, b * cos + a * sin}, 3);
  return (rotation.neighbours ? out : out.transpose(2, 3)).flatten(2);
}

at::Tensor leaf(const at::Tensor& x) {
  return x.to(at::kDouble).detach().requires_grad_();
}

struct Heads {
  int64_t tokens, queries, keys, dim;
};

// Forward and backward against autograd through the formulas in fp64.
void check_norm_rotate(const Heads& h, bool normed, bool neighbours) {
  SCOPED_TRACE(testing::Message() << h.tokens << " x " << h.queries << " + 2 " << h.keys << " x "
                                  << h.dim << " normed " << normed << " neighbours " << neighbours);
  const Rotation rotation = make_rotation(h.tokens, h.dim, neighbours);
  const at::Tensor qkv = random_bf16({h.tokens, h.queries + 2 * h.keys, h.dim});
  const at::Tensor q_norm = normed ? random_bf16({h.dim}) : at::Tensor();
  const at::Tensor k_norm = normed ? random_bf16({h.dim}) : at::Tensor();
  // A token's gradients need not lie behind the token's before.
  const at::Tensor d_q = random_bf16({h.tokens, h.queries + 1, h.dim}).narrow(1, 1, h.queries);
  const at::Tensor d_kv = random_bf16({h.tokens, 2 * h.keys, h.dim});
  const at::Tensor d_k = d_kv.narrow(1, 0, h.keys), d_v = d_kv.narrow(1, h.keys, h.keys);
  poison_gpu_memory(int64_t{1} << 26);
  const NormedHeads out = norm_rotate_forward(qkv, h.queries, q_norm, k_norm, kEps, rotation);
  const NormedHeadGrads grads =
      norm_rotate_backward(d_q, d_k, d_v, qkv, out.inverse_rms, q_norm, k_norm, rotation);

  const at::Tensor x = leaf(qkv);
  at::Tensor q = x.narrow(1, 0, h.queries), k = x.narrow(1, h.queries, h.keys), q_weight, k_weight;
  if (normed) {
    q_weight = leaf(q_norm), k_weight = leaf(k_norm);
    const at::Tensor inverse_rms =
        x.narrow(1, 0, h.queries + h.keys).square().mean(2, true).add(kEps).rsqrt();  // [tokens, N
                                                                                      // + G, 1]
    q = q * inverse_rms.narrow(1, 0, h.queries) * q_weight;
    k = k * inverse_rms.narrow(1, h.queries, h.keys) * k_weight;
    EXPECT_LT(relative_error(out.inverse_rms, inverse_rms.squeeze(2).detach()), kFp32);
  }
  q = turned(q, rotation), k = turned(k, rotation);
  const at::Tensor v = x.narrow(1, h.queries + h.keys, h.keys);
  at::cat({q, k, v}, 1).backward(at::cat({d_q, d_kv}, 1).to(at::kDouble));
  EXPECT_LT(relative_error(out.q, q.detach()), kBf16);
  EXPECT_LT(relative_error(out.k, k.detach()), kBf16);
  const auto part = [&](const at::Tensor& all, int64_t first, int64_t count) {
    return all.narrow(1, first, count);
  };
  for (const auto& [first, count] : {std::pair{int64_t{0}, h.queries}, {h.queries, h.keys}}) {
    EXPECT_LT(relative_error(part(grads.d_qkv, first, count), part(x.grad(), first, count)), kBf16);
  }
  EXPECT_TRUE(at::equal(grads.d_qkv.narrow(1, h.queries + h.keys, h.keys), d_v));
  if (!normed) return;
  EXPECT_LT(relative_error(grads.d_q_norm_parts.sum(0), q_weight.grad()), kFp32);
  EXPECT_LT(relative_error(grads.d_k_norm_parts.sum(0), k_weight.grad()), kFp32);
  const NormedHeadGrads again =
      norm_rotate_backward(d_q, d_k, d_v, qkv, out.inverse_rms, q_norm, k_norm, rotation);
  EXPECT_TRUE(at::equal(grads.d_q_norm_parts, again.d_q_norm_parts));
  EXPECT_TRUE(at::equal(grads.d_qkv, again.d_qkv));
}

TEST(Heads, NoKernelsForTensorsOfTheCpu) {
  const at::Tensor x = at::zeros({2, 3, 64}, at::kBFloat16);
  EXPECT_FALSE(has_norm_rotate(x));
  EXPECT_FALSE(has_latent_heads(x, x, 16));
  EXPECT_THROW(norm_rotate_forward(x, 1, {}, {}, kEps, {}), InternalError);
  EXPECT_THROW(rotate_in_place(x, 64, {}, false), InternalError);
}

TEST(Heads, NormAndRotate) {
  SKIP_WITHOUT_GPU();
  for (const bool normed : {true, false}) {
    for (const bool neighbours : {false, true}) {
      for (const Heads& h :
           {Heads{5, 8, 2, 64}, {3, 7, 1, 128}, {2, 9, 3, 64}, {7, 1, 1, 128}, {2, 40, 40, 128}}) {
        check_norm_rotate(h, normed, neighbours);
      }
    }
  }
}

TEST(Heads, NormAndRotateOfQwen3) {
  SKIP_WITHOUT_GPU();
  check_norm_rotate({4096, 64, 4, 128}, true, false);
  check_norm_rotate({4095, 32, 4, 128}, true, false);
}

void check_rotate_in_place(const Heads& h, int64_t rotated, bool neighbours) {
  SCOPED_TRACE(testing::Message() << h.tokens << " x " << h.queries << " x " << h.dim << ", "
                                  << rotated << " neighbours " << neighbours);
  const Rotation rotation = make_rotation(h.tokens, rotated, neighbours);
  const at::Tensor whole = random_bf16({h.tokens, h.queries + 1, h.dim});
  const at::Tensor before = whole.clone();
  const at::Tensor x = whole.narrow(1, 0, h.queries);
  rotate_in_place(x, rotated, rotation, false);
  const int64_t first = h.dim - rotated;
  const at::Tensor input = leaf(before.narrow(1, 0, h.queries).narrow(2, first, rotated));
  const at::Tensor wanted = turned(input, rotation);
  EXPECT_LT(relative_error(x.narrow(2, first, rotated), wanted.detach()), kBf16);
  EXPECT_TRUE(at::equal(whole.narrow(2, 0, first), before.narrow(2, 0, first)));
  EXPECT_TRUE(at::equal(whole.narrow(1, h.queries, 1), before.narrow(1, h.queries, 1)));

  const at::Tensor d = random_bf16({h.tokens, h.queries, h.dim});
  wanted.backward(d.narrow(2, first, rotated).to(at::kDouble));
  rotate_in_place(d, rotated, rotation, true);
  EXPECT_LT(relative_error(d.narrow(2, first, rotated), input.grad()), kBf16);
}

TEST(Heads, RotateInPlace) {
  SKIP_WITHOUT_GPU();
  for (const bool neighbours : {false, true}) {
    check_rotate_in_place({3, 5, 0, 48}, 16, neighbours);
    check_rotate_in_place({2, 7, 0, 96}, 96, neighbours);
    check_rotate_in_place({2, 150, 0, 192}, 64, neighbours);
    check_rotate_in_place({1, 3, 0, 256}, 256, neighbours);
  }
}

TEST(Heads, RotateInPlaceOfDeepSeek) {
  SKIP_WITHOUT_GPU();
  check_rotate_in_place({4096, 128, 0, 192}, 64, true);
}

struct Latent {
  int64_t tokens, heads, nope, rope, value_dim;
};

void check_latent_keys(const Latent& l, bool neighbours) {
  SCOPED_TRACE(testing::Message() << l.tokens << " x " << l.heads << " x (" << l.nope << " + "
                                  << l.rope << "), " << l.value_dim << " neighbours "
                                  << neighbours);
  const Rotation rotation = make_rotation(l.tokens, l.rope, neighbours);
  const at::Tensor up = random_bf16({l.tokens, l.heads, l.nope + l.value_dim});
  const at::Tensor k_rope = random_bf16({l.tokens, l.rope + 9}).narrow(1, 7, l.rope);
  // Attention gives its gradients with heads before tokens, or the other way round.
  const at::Tensor d_keys = random_bf16({l.heads, l.tokens, l.nope + l.rope}).transpose(0, 1);
  const at::Tensor d_values = random_bf16({l.tokens, l.heads, l.value_dim});
  poison_gpu_memory(int64_t{1} << 26);
  const LatentKeys out = latent_keys_forward(up, k_rope, l.nope, rotation);
  const LatentKeyGrads grads = latent_keys_backward(d_keys, d_values, l.nope, rotation);

  EXPECT_TRUE(at::equal(out.values, up.narrow(2, l.nope, l.value_dim)));
  EXPECT_TRUE(at::equal(out.keys.narrow(2, 0, l.nope), up.narrow(2, 0, l.nope)));
  const at::Tensor shared = leaf(k_rope);
  const at::Tensor wanted = turned(shared.unsqueeze(1), rotation).expand({-1, l.heads, -1});
  EXPECT_LT(relative_error(out.keys.narrow(2, l.nope, l.rope), wanted.detach()), kBf16);
  EXPECT_TRUE(at::equal(grads.d_up.narrow(2, 0, l.nope), d_keys.narrow(2, 0, l.nope)));
  EXPECT_TRUE(at::equal(grads.d_up.narrow(2, l.nope, l.value_dim), d_values));
  wanted.backward(d_keys.narrow(2, l.nope, l.rope).to(at::kDouble));
  EXPECT_EQ(grads.d_k_rope.sizes(), k_rope.sizes());
  EXPECT_LT(relative_error(grads.d_k_rope, shared.grad()), kBf16);
}

TEST(Heads, LatentKeys) {
  SKIP_WITHOUT_GPU();
  for (const bool neighbours : {false, true}) {
    check_latent_keys({3, 5, 32, 16, 24}, neighbours);
    check_latent_keys({2, 37, 128, 64, 128}, neighbours);
    check_latent_keys({2, 3, 264, 128, 512}, neighbours);
    check_latent_keys({1, 9, 8, 256, 8}, neighbours);
  }
}

TEST(Heads, LatentKeysOfDeepSeek) {
  SKIP_WITHOUT_GPU();
  check_latent_keys({4096, 128, 128, 64, 128}, true);
}

}  // namespace
}  // namespace moetron
