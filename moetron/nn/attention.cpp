#include "moetron/nn/attention.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/norm.h"

namespace moetron {
namespace {

class GroupedQueryAttention final : public Attention {
 public:
  GroupedQueryAttention(const std::string& prefix, const AttentionSettings& s)
      : settings_(s),
        qkv_(prefix + "qkv.weight", {rows(s), s.hidden_size}, s.dtype,
             qkv_pieces(prefix, ".weight", s, {s.hidden_size}), {}),
        output_(prefix + "o_proj.weight", {s.hidden_size, s.num_heads * s.head_dim}, s.dtype, {}) {
    if (s.bias) {
      const ParameterSettings plain{.init = Init::kZeros, .weight_decay = false};
      bias_.emplace(prefix + "qkv.bias", std::vector<int64_t>{rows(s)}, s.dtype,
                    qkv_pieces(prefix, ".bias", s, {}), plain);
    }
    if (s.qk_norm) {
      const ParameterSettings norm{.init = Init::kOnes, .weight_decay = false};
      q_norm_.emplace(prefix + "q_norm.weight", std::vector<int64_t>{s.head_dim}, s.dtype, norm);
      k_norm_.emplace(prefix + "k_norm.weight", std::vector<int64_t>{s.head_dim}, s.dtype, norm);
    }
  }

  at::Tensor forward(const at::Tensor& x, const at::Tensor& positions, AttentionCache* cache,
                     SegmentRun& run) override {
    const AttentionSettings& s = settings_;
    const at::Tensor qkv = linear(x, qkv_, run, bias_ ? &*bias_ : nullptr)
                               .unflatten(-1, {-1, s.head_dim});  // [B, T, N + 2G, D]
    at::Tensor q = qkv.narrow(2, 0, s.num_heads);
    at::Tensor k = qkv.narrow(2, s.num_heads, s.num_key_value_heads);
    at::Tensor v = qkv.narrow(2, s.num_heads + s.num_key_value_heads, s.num_key_value_heads);
    if (s.qk_norm) {
      q = rms_norm(q, *q_norm_, s.norm_eps, run);
      k = rms_norm(k, *k_norm_, s.norm_eps, run);
    }
    const RopeAngles angles = rope_angles(positions, s.inverse_frequencies, s.rope_scale);
    q = apply_rope(q, angles, s.rope_pairs, run);
    k = apply_rope(k, angles, s.rope_pairs, run);
    if (cache != nullptr) std::tie(k, v) = cache->append(k, v);
    const at::Tensor mixed = causal_attention(q, k, v, s.softmax_scale);  // [B, T, N, D]
    return linear(mixed.flatten(2), output_, run);
  }

  void visit(const ParameterVisitor& visitor) override {
    visitor(qkv_);
    if (bias_) visitor(*bias_);
    if (q_norm_) visitor(*q_norm_);
    if (k_norm_) visitor(*k_norm_);
    visitor(output_);
  }

 private:
  static int64_t rows(const AttentionSettings& s) {
    return (s.num_heads + 2 * s.num_key_value_heads) * s.head_dim;
  }

  // q, k, v one below the other; `rest` are the dimensions after the rows.
  static std::vector<ParameterPiece> qkv_pieces(const std::string& prefix,
                                                const std::string& suffix,
                                                const AttentionSettings& s,
                                                const std::vector<int64_t>& rest) {
    const int64_t row_size = rest.empty() ? 1 : rest.front();
    std::vector<ParameterPiece> pieces;
    int64_t row = 0;
    for (const auto& [name, heads] :
         {std::pair("q_proj", s.num_heads), std::pair("k_proj", s.num_key_value_heads),
          std::pair("v_proj", s.num_key_value_heads)}) {
      std::vector<int64_t> shape = {heads * s.head_dim};
      shape.insert(shape.end(), rest.begin(), rest.end());
      pieces.push_back(piece_of_rows(prefix + name + suffix, shape, row, row_size));
      row += heads * s.head_dim;
    }
    return pieces;
  }

  AttentionSettings settings_;
  Parameter qkv_;
  std::optional<Parameter> bias_;
  std::optional<Parameter> q_norm_;
  std::optional<Parameter> k_norm_;
  Parameter output_;
};

}  // namespace

std::pair<at::Tensor, at::Tensor> AttentionCache::append(const at::Tensor& keys,
                                                         const at::Tensor& values) {
  keys_ = keys_.defined() ? at::cat({keys_, keys}, 1) : keys;
  values_ = values_.defined() ? at::cat({values_, values}, 1) : values;
  return {keys_, values_};
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double softmax_scale) {
  const int64_t new_tokens = q.size(1);
  MT_CHECK(new_tokens == k.size(1) || new_tokens == 1, new_tokens, " queries over ", k.size(1),
           " keys: a cache is filled at once, then token by token");
  const int64_t repeats = q.size(2) / k.size(2);
  const auto heads_first = [](const at::Tensor& x) { return x.transpose(1, 2); };
  // Keys and values are repeated for their query heads: the CPU's fused kernel wants equal head
  // counts.
  const auto for_queries = [&](const at::Tensor& x) {
    return repeats == 1 ? heads_first(x) : heads_first(x).repeat_interleave(repeats, 1);
  };
  // The fused kernels want equal head sizes too: zeros behind the values change nothing but zeros.
  const int64_t padding = q.size(3) - v.size(3);
  const at::Tensor values = padding > 0 ? at::constant_pad_nd(v, {0, padding}) : v;
  const at::Tensor mixed = at::scaled_dot_product_attention(
      heads_first(q), for_queries(k), for_queries(values), /*attn_mask=*/{}, /*dropout_p=*/0.0,
      /*is_causal=*/new_tokens > 1, softmax_scale);  // [B, N, T, D]
  return mixed.transpose(1, 2).narrow(-1, 0, v.size(3));
}

std::unique_ptr<Attention> make_grouped_query_attention(const std::string& prefix,
                                                        const AttentionSettings& settings) {
  return std::make_unique<GroupedQueryAttention>(prefix, settings);
}

}  // namespace moetron
