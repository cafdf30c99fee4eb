#include "moetron/nn/attention.h"

#include <algorithm>
#include <limits>
#include <tuple>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/nn/fused_attention.h"
#include "moetron/nn/head_operations.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/norm.h"
#include "moetron/parallel/rank_shard.h"

namespace moetron {
namespace {

class GroupedQueryAttention final : public Attention {
 public:
  GroupedQueryAttention(const std::string& prefix, const AttentionSettings& s)
      : settings_(s),
        heads_(s.num_heads / num_ranks(s)),
        kv_heads_(std::max<int64_t>(1, s.num_key_value_heads / num_ranks(s))),
        shares_heads_(s.num_key_value_heads < num_ranks(s)),
        output_(make_output(prefix, s)),
        frequencies_(s.frequencies()) {
    make_projections(prefix);
    if (s.qk_norm) {
      const ParameterSettings norm{.init = Init::kOnes, .weight_decay = false};
      const std::vector<int64_t> shape = {s.head_dim};
      q_norm_.emplace(prefix + tensors::kQueryNorm.name, shape, s.options, norm);
      k_norm_.emplace(prefix + tensors::kKeyNorm.name, shape, s.options, norm);
    }
  }

  at::Tensor forward(const at::Tensor& x, const Remake&, const MicroBatch& micro_batch,
                     AttentionCache* cache, SegmentRun& run) override {
    const AttentionSettings& s = settings_;
    const TokenLayout& layout = micro_batch.layout;
    const at::Tensor& positions = micro_batch.positions;
    const at::Tensor all = gather_tokens(x, layout, run);  // [B * T, H]
    const auto project = [&](Projection& projection) {
      return linear(all, projection.weight, run, projection.bias ? &*projection.bias : nullptr)
          .view({positions.size(0), positions.size(1), -1, s.head_dim});  // [B, T, heads, D]
    };
    const at::Tensor first = project(*projections_.front());  // [B, T, N + 2G or N, D]
    const bool by_kernel = run.takes_kernels() && !shares_heads_ && has_norm_rotate(first);
    const QueriesKeysValues qkv =
        by_kernel ? norm_and_rotate(first, heads_, q_norm_ ? &*q_norm_ : nullptr,
                                    k_norm_ ? &*k_norm_ : nullptr, s.norm_eps,
                                    rotation(s, positions, frequencies_), run)
                  : split_heads(first, positions, project, run);
    const at::Tensor mixed = attend(qkv, micro_batch, cache, s.softmax_scale, run);  // [B, T, N, D]
    const at::Tensor partial =
        linear(mixed.flatten(2).flatten(0, 1), output_, run);  // [B * T, H], of these heads
    return reduce_scatter_tokens(partial, layout, run);
  }

  // The same of single operations. `first` as below; `project` for the second product.
  template <class Project>
  QueriesKeysValues split_heads(const at::Tensor& first, const at::Tensor& positions,
                                const Project& project, SegmentRun& run) {
    const AttentionSettings& s = settings_;
    const at::Tensor kv =
        shares_heads_ ? project(*projections_.back()) : first.narrow(2, heads_, 2 * kv_heads_);
    at::Tensor q = first.narrow(2, 0, heads_);
    at::Tensor k = kv.narrow(2, 0, kv_heads_);
    if (s.qk_norm) {
      q = rms_norm(q, *q_norm_, s.norm_eps, run);
      k = rms_norm(k, *k_norm_, s.norm_eps, run);
    }
    const RopeAngles angles = rope_angles(positions, frequencies_, s.rope_scale);
    return {apply_rope(q, angles, s.rope_pairs, run), apply_rope(k, angles, s.rope_pairs, run),
            kv.narrow(2, kv_heads_, kv_heads_)};
  }

  void visit(const ParameterVisitor& visitor) override {
    for (const auto& projection : projections_) {
      visitor(projection->weight);
      if (projection->bias) visitor(*projection->bias);
    }
    if (q_norm_) visitor(*q_norm_);
    if (k_norm_) visitor(*k_norm_);
    visitor(output_);
  }

 private:
  struct Projection {
    Parameter weight;
    std::optional<Parameter> bias;
  };

  // Queries, keys or values: weight and bias, and the heads over all ranks.
  struct HeadRows {
    TensorRule weight, bias;
    int64_t num_heads;
  };

  static int64_t num_ranks(const AttentionSettings& s) {
    return s.tensor_group == nullptr ? 1 : s.tensor_group->size();
  }
  static Parameter make_output(const std::string& prefix, const AttentionSettings& s) {
    const std::string name = prefix + tensors::kAttentionOut.name;
    const auto [shard, replicas] = rank_shard(tensors::kAttentionOut.shard, s.tensor_group);
    const int64_t columns = s.num_heads * s.head_dim;
    return Parameter(name, {s.hidden_size, columns / shard.count}, s.options,
                     {piece_of_shard(name, {s.hidden_size, columns}, shard, 0)},
                     {.replicas = replicas});
  }

  // Queries, keys and values in one product; but in two where ranks share key-value heads, since
  // the gradients of those are summed over other ranks.
  void make_projections(const std::string& prefix) {
    const AttentionSettings& s = settings_;
    const HeadRows q{tensors::kQuery, tensors::kQueryBias, s.num_heads};
    const HeadRows k{tensors::kKey, tensors::kKeyBias, s.num_key_value_heads};
    const HeadRows v{tensors::kValue, tensors::kValueBias, s.num_key_value_heads};
    if (shares_heads_) {
      projections_.push_back(make_projection(prefix + "q", {q}));
      projections_.push_back(make_projection(prefix + "kv", {k, v}));
    } else {
      projections_.push_back(make_projection(prefix + "qkv", {q, k, v}));
    }
  }

  RankShard shard_of(const TensorRule& tensor) const {
    return rank_shard(tensor.shard, settings_.tensor_group,
                      {.num_key_value_heads = settings_.num_key_value_heads});
  }

  // The parts one below the other. `label` begins with the prefix of the names.
  std::unique_ptr<Projection> make_projection(const std::string& label,
                                              const std::vector<HeadRows>& parts) const {
    const AttentionSettings& s = settings_;
    const std::string prefix = label.substr(0, label.rfind('.') + 1);
    const ReplicaRule replicas = shard_of(parts.front().weight).replicas;
    std::vector<ParameterPiece> weights, biases;
    int64_t rows = 0;
    for (const auto& [weight, bias, num_heads] : parts) {
      const int64_t all_rows = num_heads * s.head_dim;
      const ShardOf shard = shard_of(weight).shard;
      weights.push_back(piece_of_shard(prefix + weight.name, {all_rows, s.hidden_size}, shard,
                                       rows * s.hidden_size));
      biases.push_back(piece_of_shard(prefix + bias.name, {all_rows}, shard_of(bias).shard, rows));
      rows += all_rows / shard.count;
    }
    auto projection = std::unique_ptr<Projection>(
        new Projection{.weight = Parameter(label + ".weight", {rows, s.hidden_size}, s.options,
                                           std::move(weights), {.replicas = replicas}),
                       .bias = std::nullopt});
    if (s.bias) {
      projection->bias.emplace(
          label + ".bias", std::vector<int64_t>{rows}, s.options, std::move(biases),
          ParameterSettings{.init = Init::kZeros, .weight_decay = false, .replicas = replicas});
    }
    return projection;
  }

  AttentionSettings settings_;
  int64_t heads_;      // of this rank
  int64_t kv_heads_;   // of this rank
  bool shares_heads_;  // key-value heads are held by several ranks
  std::vector<std::unique_ptr<Projection>> projections_;
  std::optional<Parameter> q_norm_;
  std::optional<Parameter> k_norm_;
  Parameter output_;
  at::Tensor frequencies_;  // [D / 2] fp32
};

}  // namespace

at::Tensor AttentionSettings::frequencies() const {
  return at::tensor(inverse_frequencies, at::kFloat).to(options.device());
}

Rotation rotation(const AttentionSettings& settings, const at::Tensor& positions,
                  const at::Tensor& frequencies) {
  return {.positions = positions.reshape(-1),
          .inverse_frequencies = frequencies,
          .scale = settings.rope_scale,
          .neighbours = settings.rope_pairs == RopePairs::kNeighbours};
}

namespace {

// [T, S]: whether query t sees key s.
at::Tensor visible_keys(int64_t num_new, int64_t num_all, c10::Device device) {
  return at::ones({num_new, num_all}, at::TensorOptions(device).dtype(at::kBool))
      .tril(num_all - num_new);
}

// The formula, with the scores of all queries and keys at once: [B, N, T, S] fp32.
at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           double softmax_scale) {
  const int64_t repeats = q.size(2) / k.size(2), num_new = q.size(1), num_all = k.size(1);
  const at::Tensor keys = heads_first(k, repeats, k.size(3));
  const at::Tensor scores =
      heads_first(q, 1, q.size(3)).matmul(keys.transpose(2, 3)).to(at::kFloat).mul(softmax_scale);
  const at::Tensor is_later = visible_keys(num_new, num_all, scores.device()).logical_not();
  const at::Tensor shares =
      scores.masked_fill(is_later, -std::numeric_limits<double>::infinity()).softmax(-1);
  return shares.to(v.dtype()).matmul(heads_first(v, repeats, v.size(3))).transpose(1, 2);
}

// One document after the other. q [B, T, N, D], k and v alike; `seen` gives the keys and values
// that document `i` attends to, of its own new ones: [S, G, D], [S, G, V].
template <class Seen>
at::Tensor by_document(const QueriesKeysValues& qkv, const std::vector<int64_t>& bounds,
                       const Seen& seen, double softmax_scale, SegmentRun& run) {
  const at::Tensor& q = qkv.queries;
  MT_CHECK(qkv.keys.size(1) == q.size(1) && bounds.back() == q.size(0) * q.size(1), "documents of ",
           bounds.back(), " tokens in a micro-batch of ", q.size(0) * q.size(1));
  std::vector<int64_t> lengths;
  for (size_t i = 1; i < bounds.size(); ++i) lengths.push_back(bounds[i] - bounds[i - 1]);
  const auto cut = [&](const at::Tensor& x) {
    return x.flatten(0, 1).split_with_sizes(lengths);  // each [tokens, heads, width]
  };
  const auto qs = cut(q), ks = cut(qkv.keys), vs = cut(qkv.values);
  std::vector<at::Tensor> mixed;
  for (size_t i = 0; i < lengths.size(); ++i) {
    const KeysValues own = seen(i, KeysValues{ks[i], vs[i]});
    mixed.push_back(causal_attention(qs[i].unsqueeze(0), own.keys.unsqueeze(0),
                                     own.values.unsqueeze(0), softmax_scale, run));
  }
  return at::cat(mixed, 1).unflatten(1, {q.size(0), q.size(1)}).squeeze(0);
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double softmax_scale, SegmentRun& run) {
  const int64_t new_tokens = q.size(1);
  const bool continues = new_tokens < k.size(1);
  MT_CHECK(!run.with_grad() || !continues, "gradients through a cache of keys and values");
  if (run.operators().attention == Operators::kPlain)
    return plain_attention(q, k, v, softmax_scale);
  // With and without gradients alike: a recomputation must repeat its forward to the bit.
  if (!continues && has_fused_attention(q, v)) {
    return fused_attention(q, k, v, /*documents=*/{}, softmax_scale, run);
  }
  std::optional<at::Tensor> mask;  // none is needed where a single token sees all
  if (continues && new_tokens > 1) mask = visible_keys(new_tokens, k.size(1), q.device());
  const int64_t repeats = q.size(2) / k.size(2), width = common_width(q, v);
  const at::Tensor mixed = at::scaled_dot_product_attention(
      heads_first(q, 1, width), heads_first(k, repeats, width), heads_first(v, repeats, width),
      mask, /*dropout_p=*/0.0,
      /*is_causal=*/!continues && new_tokens > 1, softmax_scale);  // [B, N, T, D]
  return mixed.transpose(1, 2).narrow(-1, 0, v.size(3));
}

at::Tensor document_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const DocumentBounds& documents, double softmax_scale,
                              SegmentRun& run) {
  if (!documents.defined()) return causal_attention(q, k, v, softmax_scale, run);
  if (run.operators().attention != Operators::kPlain && has_packed_attention(q, v)) {
    return fused_attention(q, k, v, documents, softmax_scale, run);
  }
  const auto own = [](size_t, const KeysValues& mine) { return mine; };
  return by_document({q, k, v}, documents.on_host, own, softmax_scale, run);
}

at::Tensor attend(const QueriesKeysValues& qkv, const MicroBatch& micro_batch,
                  AttentionCache* cache, double softmax_scale, SegmentRun& run) {
  const auto& [q, k, v] = qkv;
  const DocumentBounds& documents = micro_batch.documents;
  if (cache == nullptr) return document_attention(q, k, v, documents, softmax_scale, run);
  const std::vector<int64_t>& sequences = micro_batch.cache->sequences;
  MT_CHECK(documents.on_host.size() == sequences.size() + 1, documents.on_host.size(),
           " bounds of documents that continue ", sequences.size(), " sequences");
  const auto all = [&](size_t i, const KeysValues& mine) {
    return cache->append(sequences[i], mine.keys, mine.values);
  };
  return by_document(qkv, documents.on_host, all, softmax_scale, run);
}

std::unique_ptr<Attention> make_grouped_query_attention(const std::string& prefix,
                                                        const AttentionSettings& settings) {
  return std::make_unique<GroupedQueryAttention>(prefix, settings);
}

}  // namespace moetron
