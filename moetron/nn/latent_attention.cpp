// Multi-head latent attention. Row order in the checkpoints: a head's query rows are [nope ; rope],
// its rows of kv_b are [k_nope ; v], and kv_a's rows are [latent ; k_rope]. The rotated part of the
// key is one vector, shared by all heads and not normed.
#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/nn/attention.h"
#include "moetron/nn/head_operations.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/norm.h"
#include "moetron/parallel/rank_shard.h"

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
        num_ranks_(s.tensor_group == nullptr ? 1 : s.tensor_group->size()),
        heads_(s.num_heads / num_ranks_),
        divides_down_(shard_of(tensors::kKeyValueDown).shard.count > 1),
        frequencies_(s.frequencies()),
        kv_norm_(prefix + tensors::kKeyValueLatentNorm.name, {dims.kv_lora_rank}, s.options,
                 kNormSettings),
        kv_up_(sharded(prefix, tensors::kKeyValueUp,
                       s.num_heads * (dims.qk_nope_head_dim + dims.v_head_dim), dims.kv_lora_rank)),
        output_(
            sharded(prefix, tensors::kAttentionOut, s.hidden_size, s.num_heads * dims.v_head_dim)) {
    const int64_t q_rows = s.num_heads * (dims.qk_nope_head_dim + dims.qk_rope_head_dim);
    const DownPart kv{tensors::kKeyValueDown, dims.kv_lora_rank + dims.qk_rope_head_dim};
    if (dims.q_lora_rank == 0) {
      q_ = sharded(prefix, tensors::kQuery, q_rows, s.hidden_size);
      kv_down_ = make_down(prefix, "kv_a", {kv});
      return;
    }
    const DownPart q{tensors::kQueryDown, dims.q_lora_rank};
    q_norm_.emplace(prefix + tensors::kQueryLatentNorm.name, std::vector<int64_t>{dims.q_lora_rank},
                    s.options, kNormSettings);
    q_ = sharded(prefix, tensors::kQueryUp, q_rows, dims.q_lora_rank);
    if (dims.fuse_down) {
      q_down_ = make_down(prefix, "qkv_a", {q, kv});
    } else {
      q_down_ = make_down(prefix, "q_a", {q});
      kv_down_ = make_down(prefix, "kv_a", {kv});
    }
  }

  at::Tensor forward(const at::Tensor& x, const Remake& remake_x, const MicroBatch& micro_batch,
                     AttentionCache* cache, SegmentRun& run) override {
    const at::Tensor& positions = micro_batch.positions;
    const int64_t batch = positions.size(0), seq = positions.size(1);
    const TokenLayout& layout = micro_batch.layout;
    const auto by_head = [&](const at::Tensor& rows, int64_t heads) {
      return rows.view({batch, seq, heads, -1});
    };
    const Latents down = divides_down_ ? divided_down(x, remake_x, layout, run)
                                       : whole_down(x, remake_x, layout, run);

    const at::Tensor q = by_head(project(down.queries, *q_, down.remake_queries, run), heads_);
    const at::Tensor up =
        by_head(project(down.keys_values, *kv_up_, down.remake_keys_values, run), heads_);
    const at::Tensor k_rope = by_head(down.k_rope, 1);  // [B, T, 1, rope]
    const QueriesKeysValues qkv =
        run.takes_kernels() && has_latent_heads(q, up, dims_.qk_rope_head_dim)
            ? by_kernels(q, up, k_rope, positions, run)
            : rotated(q, up, k_rope, positions, run);
    const at::Tensor mixed =
        attend(qkv, micro_batch, cache, settings_.softmax_scale, run);  // [B, T, N, V]
    const at::Tensor partial =
        linear(mixed.flatten(2).flatten(0, 1), *output_, run);  // [B * T, H], of these heads
    return reduce_scatter_tokens(partial, layout, run);
  }

  // q [B, T, N, nope + rope], up [B, T, N, nope + V], k_rope [B, T, 1, rope] -> what attention
  // takes.
  QueriesKeysValues by_kernels(const at::Tensor& q, const at::Tensor& up, const at::Tensor& k_rope,
                               const at::Tensor& positions, SegmentRun& run) {
    const Rotation rotation = moetron::rotation(settings_, positions, frequencies_);
    QueriesKeysValues out = join_latent_keys(up, k_rope, dims_.qk_nope_head_dim, rotation, run);
    out.queries = rotate_queries(q, dims_.qk_rope_head_dim, rotation, run);
    return out;
  }

  // The same of single operations.
  QueriesKeysValues rotated(const at::Tensor& q, const at::Tensor& up, const at::Tensor& k_rope,
                            const at::Tensor& positions, SegmentRun& run) {
    const int64_t nope = dims_.qk_nope_head_dim, rope = dims_.qk_rope_head_dim;
    const RopeAngles angles = rope_angles(positions, frequencies_, settings_.rope_scale);
    const auto rotate = [&](const at::Tensor& part) {
      return apply_rope(part, angles, settings_.rope_pairs, run);
    };
    QueriesKeysValues out;
    out.queries = at::cat({q.narrow(-1, 0, nope), rotate(q.narrow(-1, nope, rope))}, -1);
    out.keys = at::cat({up.narrow(-1, 0, nope), rotate(k_rope).expand({-1, -1, heads_, -1})}, -1);
    // A copy, so that attention does not keep all of `up` for it.
    out.values = up.narrow(-1, nope, dims_.v_head_dim).contiguous();
    return out;
  }

  void visit(const ParameterVisitor& visitor) override {
    if (q_down_) visitor(*q_down_);
    if (q_norm_) visitor(*q_norm_);
    visitor(*q_);
    if (kv_down_) visitor(*kv_down_);
    visitor(kv_norm_);
    visitor(*kv_up_);
    visitor(*output_);
  }

 private:
  // What the up projections read, of all tokens; the latents are normed.
  struct Latents {
    at::Tensor queries;      // [B * T, q_lora_rank], or [B * T, H] without query latents
    at::Tensor keys_values;  // [B * T, kv_lora_rank]
    at::Tensor k_rope;       // [B * T, rope], not rotated yet
    Remake remake_queries, remake_keys_values;
  };
  struct DownPart {
    TensorRule tensor;
    int64_t rows;
  };
  struct DownOutput {
    at::Tensor q;   // undefined without query latents
    at::Tensor kv;  // latent and k_rope
  };

  RankShard shard_of(const TensorRule& tensor) const {
    return rank_shard(tensor.shard, settings_.tensor_group,
                      {.mla_replicate_l1 = dims_.replicate_down});
  }

  // A weight [rows, columns], of which this rank holds its part.
  std::unique_ptr<Parameter> sharded(const std::string& prefix, const TensorRule& tensor,
                                     int64_t rows, int64_t columns) const {
    const auto [shard, replicas] = shard_of(tensor);
    const std::string name = prefix + tensor.name;
    std::vector<int64_t> shape = {rows, columns};
    shape[static_cast<size_t>(shard.dim)] /= shard.count;
    return std::make_unique<Parameter>(name, shape, settings_.options,
                                       std::vector{piece_of_shard(name, {rows, columns}, shard, 0)},
                                       ParameterSettings{.replicas = replicas});
  }

  // Down projections one below the other, each whole or divided by rows.
  std::unique_ptr<Parameter> make_down(const std::string& prefix, const char* label,
                                       const std::vector<DownPart>& parts) const {
    const int64_t hidden = settings_.hidden_size;
    std::vector<ParameterPiece> pieces;
    int64_t rows = 0;
    for (const auto& [tensor, all_rows] : parts) {
      const ShardOf shard = shard_of(tensor).shard;
      pieces.push_back(
          piece_of_shard(prefix + tensor.name, {all_rows, hidden}, shard, rows * hidden));
      rows += all_rows / shard.count;
    }
    return std::make_unique<Parameter>(
        prefix + label, std::vector<int64_t>{rows, hidden}, settings_.options, std::move(pieces),
        ParameterSettings{.replicas = shard_of(parts.front().tensor).replicas});
  }

  at::Tensor project(const at::Tensor& x, Parameter& weight, const Remake& remake_x,
                     SegmentRun& run) const {
    return linear(x, weight, run, /*bias=*/nullptr, {},
                  dims_.recompute_norms ? remake_x : Remake());
  }

  DownOutput project_down(const at::Tensor& x, const Remake& remake_x, SegmentRun& run) {
    if (!q_down_) return {{}, project(x, *kv_down_, remake_x, run)};
    const at::Tensor first = project(x, *q_down_, remake_x, run);
    if (kv_down_) return {first, project(x, *kv_down_, remake_x, run)};
    const int64_t q_rows = dims_.q_lora_rank / (divides_down_ ? num_ranks_ : 1);
    const auto parts = split_columns(first, {q_rows, first.size(1) - q_rows}, run);
    return {parts[0], parts[1]};
  }

  // Every rank projects its own tokens, and one gather brings all tokens' latents together.
  Latents whole_down(const at::Tensor& x, const Remake& remake_x, const TokenLayout& layout,
                     SegmentRun& run) {
    const DownOutput own = project_down(x, remake_x, run);
    const int64_t latent = dims_.kv_lora_rank, rope = dims_.qk_rope_head_dim;
    const auto kv = split_columns(own.kv, {latent, rope}, run);
    Latents down = norm_latents(q_norm_ ? own.q : x, remake_x, kv[0], kv[1], run);
    if (layout.size() == 1) return down;
    const int64_t q_width = down.queries.size(1);
    const at::Tensor all =
        gather_tokens(at::cat({down.queries, down.keys_values, down.k_rope}, 1), layout, run);
    return {all.narrow(1, 0, q_width), all.narrow(1, q_width, latent),
            all.narrow(1, q_width + latent, rope), gathered(down.remake_queries, layout),
            gathered(down.remake_keys_values, layout)};
  }

  // Every rank projects all tokens to its part of the latents, and a gather joins the parts.
  Latents divided_down(const at::Tensor& x, const Remake& remake_x, const TokenLayout& layout,
                       SegmentRun& run) {
    const at::Tensor all = gather_tokens(x, layout, run);  // [B * T, H]
    const Remake remake_all = gathered(remake_x, layout);
    const DownOutput own = project_down(all, remake_all, run);
    const at::Tensor kv = gather_features(own.kv, layout, run);  // [B * T, latent + rope]
    return norm_latents(q_norm_ ? gather_features(own.q, layout, run) : all, remake_all,
                        kv.narrow(1, 0, dims_.kv_lora_rank),
                        kv.narrow(1, dims_.kv_lora_rank, dims_.qk_rope_head_dim), run);
  }

  // q: the queries' latents, or what they are projected from, which `remake_q` makes anew.
  Latents norm_latents(const at::Tensor& q, const Remake& remake_q, const at::Tensor& kv,
                       const at::Tensor& k_rope, SegmentRun& run) {
    Latents down{q, rms_norm(kv, kv_norm_, kLatentNormEps, run), k_rope, remake_q,
                 remake_norm(kv, kv_norm_, kLatentNormEps, run)};
    if (!q_norm_) return down;
    down.queries = rms_norm(q, *q_norm_, kLatentNormEps, run);
    down.remake_queries = remake_norm(q, *q_norm_, kLatentNormEps, run);
    return down;
  }

  static Remake gathered(const Remake& remake, const TokenLayout& layout) {
    return [remake, layout] { return gather_tokens(remake(), layout); };
  }

  AttentionSettings settings_;
  MlaDims dims_;
  int64_t num_ranks_;
  int64_t heads_;  // of this rank
  bool divides_down_;
  std::unique_ptr<Parameter> q_down_;  // with fuse_down: the keys' and values' too
  std::optional<Parameter> q_norm_;
  std::unique_ptr<Parameter> q_;
  std::unique_ptr<Parameter> kv_down_;
  at::Tensor frequencies_;  // [rope / 2] fp32
  Parameter kv_norm_;
  std::unique_ptr<Parameter> kv_up_;
  std::unique_ptr<Parameter> output_;
};

}  // namespace

std::unique_ptr<Attention> make_latent_attention(const std::string& prefix,
                                                 const AttentionSettings& settings,
                                                 const MlaDims& dims) {
  return std::make_unique<LatentAttention>(prefix, settings, dims);
}

}  // namespace moetron
