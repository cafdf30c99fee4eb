// Multi-head latent attention. Row order in the checkpoints: a head's query rows are [nope ; rope],
// its rows of kv_b are [k_nope ; v], and kv_a's rows are [latent ; k_rope]. The rotated part of the
// key is one vector, shared by all heads and not normed.
#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/norm.h"

namespace moetron {
namespace {

constexpr double kLatentNormEps =
    1e-6;  // the class default in every release, whatever config.json says
constexpr ParameterSettings kNormSettings{.init = Init::kOnes, .weight_decay = false};

class LatentAttention final : public Attention {
 public:
  LatentAttention(const std::string& prefix, const AttentionSettings& s, const MlaDims& dims)
      : settings_(s),
        dims_(dims),
        kv_down_(prefix + "kv_a_proj_with_mqa.weight",
                 {dims.kv_lora_rank + dims.qk_rope_head_dim, s.hidden_size}, s.dtype, {}),
        kv_norm_(prefix + "kv_a_layernorm.weight", {dims.kv_lora_rank}, s.dtype, kNormSettings),
        kv_up_(prefix + "kv_b_proj.weight",
               {s.num_heads * (dims.qk_nope_head_dim + dims.v_head_dim), dims.kv_lora_rank},
               s.dtype, {}),
        output_(prefix + "o_proj.weight", {s.hidden_size, s.num_heads * dims.v_head_dim}, s.dtype,
                {}) {
    const int64_t q_rows = s.num_heads * (dims.qk_nope_head_dim + dims.qk_rope_head_dim);
    if (dims.q_lora_rank == 0) {
      q_.emplace(prefix + "q_proj.weight", std::vector<int64_t>{q_rows, s.hidden_size}, s.dtype,
                 ParameterSettings{});
      return;
    }
    q_down_.emplace(prefix + "q_a_proj.weight",
                    std::vector<int64_t>{dims.q_lora_rank, s.hidden_size}, s.dtype,
                    ParameterSettings{});
    q_norm_.emplace(prefix + "q_a_layernorm.weight", std::vector<int64_t>{dims.q_lora_rank},
                    s.dtype, kNormSettings);
    q_.emplace(prefix + "q_b_proj.weight", std::vector<int64_t>{q_rows, dims.q_lora_rank}, s.dtype,
               ParameterSettings{});
  }

  at::Tensor forward(const at::Tensor& x, const at::Tensor& positions, AttentionCache* cache,
                     SegmentRun& run) override {
    const int64_t heads = settings_.num_heads;
    const int64_t nope = dims_.qk_nope_head_dim, rope = dims_.qk_rope_head_dim;
    const RopeAngles angles =
        rope_angles(positions, settings_.inverse_frequencies, settings_.rope_scale);
    const auto rotated = [&](const at::Tensor& part) {
      return apply_rope(part, angles, settings_.rope_pairs, run);
    };

    const at::Tensor q_input =
        q_down_ ? rms_norm(linear(x, *q_down_, run), *q_norm_, kLatentNormEps, run) : x;
    const at::Tensor q = linear(q_input, *q_, run).unflatten(-1, {heads, nope + rope});
    const at::Tensor queries =
        at::cat({q.narrow(-1, 0, nope), rotated(q.narrow(-1, nope, rope))}, -1);  // [B, T, N, D]

    const at::Tensor down = linear(x, kv_down_, run);  // [B, T, latent + rope]
    const at::Tensor latent =
        rms_norm(down.narrow(-1, 0, dims_.kv_lora_rank), kv_norm_, kLatentNormEps, run);
    const at::Tensor k_rope =
        rotated(down.narrow(-1, dims_.kv_lora_rank, rope).unsqueeze(2));  // [B, T, 1, rope]
    const at::Tensor up =
        linear(latent, kv_up_, run).unflatten(-1, {heads, nope + dims_.v_head_dim});
    at::Tensor keys = at::cat({up.narrow(-1, 0, nope), k_rope.expand({-1, -1, heads, -1})}, -1);
    at::Tensor values = up.narrow(-1, nope, dims_.v_head_dim);
    if (cache != nullptr) std::tie(keys, values) = cache->append(keys, values);
    const at::Tensor mixed =
        causal_attention(queries, keys, values, settings_.softmax_scale);  // [B, T, N, V]
    return linear(mixed.flatten(2), output_, run);
  }

  void visit(const ParameterVisitor& visitor) override {
    if (q_down_) visitor(*q_down_);
    if (q_norm_) visitor(*q_norm_);
    visitor(*q_);
    visitor(kv_down_);
    visitor(kv_norm_);
    visitor(kv_up_);
    visitor(output_);
  }

 private:
  AttentionSettings settings_;
  MlaDims dims_;
  std::optional<Parameter> q_down_;
  std::optional<Parameter> q_norm_;
  std::optional<Parameter> q_;
  Parameter kv_down_;
  Parameter kv_norm_;
  Parameter kv_up_;
  Parameter output_;
};

}  // namespace

std::unique_ptr<Attention> make_latent_attention(const std::string& prefix,
                                                 const AttentionSettings& settings,
                                                 const MlaDims& dims) {
  return std::make_unique<LatentAttention>(prefix, settings, dims);
}

}  // namespace moetron
