#include "moetron/convert/megatron_tensors.h"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// In which layers a parameter is.
enum class Where { kAll, kGroupedQuery, kLatent, kDense, kMoe, kExperts };
// How the rows of several tensors follow each other: of each key-value head its queries, key and
// value; of each rank its part of each.
enum class Fusion { kByRank, kByKeyValueHead };

struct ParameterRule {
  Where where;
  const char* local;   // behind "decoder.layers.3."; # is an expert's number on its rank
  const char* engine;  // with TransformerEngine, or grouped experts; nullptr: the same
  const char* part;    // of the Hugging Face names; # is the expert's number in the model
  const TensorRule* tensors[3];
  Fusion fusion = Fusion::kByRank;
};

// What a model lacks (biases, norms of heads, ranks of queries) its layers lack.
constexpr ParameterRule kLayerRules[] = {
    {Where::kGroupedQuery,
     "input_layernorm.weight",
     "self_attention.linear_qkv.layer_norm_weight",
     "",
     {&tensors::kInputNorm}},
    {Where::kLatent, "input_layernorm.weight", nullptr, "", {&tensors::kInputNorm}},
    {Where::kGroupedQuery,
     "self_attention.linear_qkv.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kQuery, &tensors::kKey, &tensors::kValue},
     Fusion::kByKeyValueHead},
    {Where::kGroupedQuery,
     "self_attention.linear_qkv.bias",
     nullptr,
     tensors::kAttention,
     {&tensors::kQueryBias, &tensors::kKeyBias, &tensors::kValueBias},
     Fusion::kByKeyValueHead},
    {Where::kGroupedQuery,
     "self_attention.q_layernorm.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kQueryNorm}},
    {Where::kGroupedQuery,
     "self_attention.k_layernorm.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kKeyNorm}},
    {Where::kLatent,
     "self_attention.linear_q_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kQuery}},
    {Where::kLatent,
     "self_attention.linear_q_down_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kQueryDown}},
    {Where::kLatent,
     "self_attention.q_layernorm.weight",
     "self_attention.linear_q_up_proj.layer_norm_weight",
     tensors::kAttention,
     {&tensors::kQueryLatentNorm}},
    {Where::kLatent,
     "self_attention.linear_q_up_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kQueryUp}},
    {Where::kLatent,
     "self_attention.linear_kv_down_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kKeyValueDown}},
    {Where::kLatent,
     "self_attention.kv_layernorm.weight",
     "self_attention.linear_kv_up_proj.layer_norm_weight",
     tensors::kAttention,
     {&tensors::kKeyValueLatentNorm}},
    {Where::kLatent,
     "self_attention.linear_kv_up_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kKeyValueUp}},
    {Where::kAll,
     "self_attention.linear_proj.weight",
     nullptr,
     tensors::kAttention,
     {&tensors::kAttentionOut}},
    {Where::kDense,
     "pre_mlp_layernorm.weight",
     "mlp.linear_fc1.layer_norm_weight",
     "",
     {&tensors::kPostAttentionNorm}},
    {Where::kMoe, "pre_mlp_layernorm.weight", nullptr, "", {&tensors::kPostAttentionNorm}},
    {Where::kDense,
     "mlp.linear_fc1.weight",
     nullptr,
     tensors::kMlp,
     {&tensors::kGate, &tensors::kUp}},
    {Where::kDense, "mlp.linear_fc2.weight", nullptr, tensors::kMlp, {&tensors::kDown}},
    {Where::kMoe, "mlp.router.weight", nullptr, tensors::kRouter, {&tensors::kRouterWeight}},
    {Where::kMoe, "mlp.router.expert_bias", nullptr, tensors::kRouter, {&tensors::kRouterBias}},
    {Where::kExperts,
     "mlp.experts.local_experts.#.linear_fc1.weight",
     "mlp.experts.linear_fc1.weight#",
     "mlp.experts.#.",
     {&tensors::kGate, &tensors::kUp}},
    {Where::kExperts,
     "mlp.experts.local_experts.#.linear_fc2.weight",
     "mlp.experts.linear_fc2.weight#",
     "mlp.experts.#.",
     {&tensors::kDown}},
    {Where::kMoe,
     "mlp.shared_experts.linear_fc1.weight",
     nullptr,
     tensors::kSharedExpert,
     {&tensors::kGate, &tensors::kUp}},
    {Where::kMoe,
     "mlp.shared_experts.linear_fc2.weight",
     nullptr,
     tensors::kSharedExpert,
     {&tensors::kDown}},
};

// What a layer of multi-token prediction has beside a decoder layer, behind "mtp.layers.0.". Its
// join is a linear that is divided, which Moetron's is not.
struct MtpRule {
  const char* name;
  TensorRule tensor;
  ShardRule shard;
};
constexpr MtpRule kMtpRules[] = {
    {"enorm.weight", tensors::kMtpEmbeddingNorm, {}},
    {"hnorm.weight", tensors::kMtpHiddenNorm, {}},
    {"eh_proj.weight", tensors::kMtpJoin, {Division::kParts}},
    {"final_layernorm.weight", tensors::kMtpHeadNorm, {}},
};

std::string numbered(std::string_view text, int64_t number) {
  std::string result(text);
  const size_t place = result.find('#');
  if (place != std::string::npos) result.replace(place, 1, std::to_string(number));
  return result;
}

}  // namespace

int64_t num_columns(const std::vector<int64_t>& shape) {
  return shape.size() < 2 ? 1 : shape[1];
}

// Lists what one chunk of one rank holds.
class ChunkBuilder {
 public:
  ChunkBuilder(const MegatronModel& model, const MegatronRank& rank)
      : model_(model), config_(model.config_), layout_(model.layout_), rank_(rank) {}

  std::vector<MegatronTensor> build(const StageLayers& stage) {
    const bool has_mtp = stage.has_head && model_.mtp_ == MtpTensors::kInclude;
    // Multi-token prediction embeds tokens again.
    if (stage.has_embedding || has_mtp)
      add_end("embedding.word_embeddings.weight", tensors::kEmbedding);
    for (int64_t i = 0; i < stage.count; ++i) {
      const int64_t layer = stage.first + i;
      add_layer(concat("decoder.layers.", i, "."), layer, config_.is_moe_layer(layer));
    }
    if (!stage.has_head) return std::move(tensors_);
    add_end("decoder.final_layernorm.weight", tensors::kFinalNorm);
    if (has_mtp)
      for (int64_t i = 0; i < config_.num_mtp_layers; ++i) add_mtp_layer(i);
    // A tied head is the embedding, or its copy where that is on another stage.
    if (!config_.tie_word_embeddings)
      add_end("output_layer.weight", tensors::kHead);
    else if (!stage.has_embedding)
      add_end("output_layer.weight", tensors::kEmbedding);
    return std::move(tensors_);
  }

 private:
  void add_end(const char* name, const TensorRule& rule) {
    add(name, {model_.places_.at(rule.name)}, rule.shard, Fusion::kByRank);
  }

  void add_mtp_layer(int64_t number) {
    const std::string prefix = concat("mtp.layers.", number, ".");
    const int64_t layer = config_.num_layers + number;
    for (const MtpRule& rule : kMtpRules)
      add(prefix + rule.name, {model_.places_.at(layer_prefix(layer) + rule.tensor.name)},
          rule.shard, Fusion::kByRank);
    add_layer(prefix + "transformer_layer.", layer, config_.moe.has_value());
  }

  // `prefix` is Megatron's, `layer` that of Hugging Face.
  void add_layer(const std::string& prefix, int64_t layer, bool is_moe) {
    for (const ParameterRule& rule : kLayerRules) {
      if (!has(rule.where, is_moe)) continue;
      const bool is_expert = rule.where == Where::kExperts;
      if (is_expert && layout_.legacy_experts) continue;
      const bool by_engine = is_expert ? layout_.grouped_experts : layout_.transformer_engine;
      const char* name = by_engine && rule.engine != nullptr ? rule.engine : rule.local;
      const int64_t count = is_expert ? config_.moe->num_experts / layout_.ep : 1;
      for (int64_t i = 0; i < count; ++i) {
        const std::string part = layer_prefix(layer) + numbered(rule.part, rank_.ep * count + i);
        const std::vector<size_t> sources = find_all(part, rule);
        if (!sources.empty())
          add(prefix + numbered(name, i), sources, rule.tensors[0]->shard, rule.fusion);
      }
    }
    if (is_moe && layout_.legacy_experts) add_legacy_experts(prefix + "mlp.experts.", layer);
  }

  // weight1 [hidden, experts * 2 * width] and weight2 [experts * width, hidden] have the elements
  // of [experts, hidden, 2 * width], gate and up side by side, and [experts, width, hidden]: each
  // expert's matrices transposed. Of a rank in tpe its part of the width.
  void add_legacy_experts(const std::string& prefix, int64_t layer) {
    const int64_t count = config_.moe->num_experts / layout_.ep;
    const int64_t width = config_.moe->expert_intermediate_size / layout_.tpe;
    const int64_t hidden = config_.hidden_size;
    MegatronTensor first{prefix + "weight1", {hidden, count * 2 * width}, {}};
    MegatronTensor second{prefix + "weight2", {count * width, hidden}, {}};
    for (int64_t i = 0; i < count; ++i) {
      const std::string part =
          layer_prefix(layer) + numbered("mlp.experts.#.", rank_.ep * count + i);
      const auto place = [&](const TensorRule& rule) {
        return model_.places_.at(part + rule.name);
      };
      TensorPiece piece{.tensor = place(tensors::kGate),
                        .row = rank_.tpe * width,
                        .rows = width,
                        .column = 0,
                        .columns = hidden,
                        .transposed = true,
                        .begin = i * 2 * width * hidden,
                        .stride = 2 * width};
      first.pieces.push_back(piece);
      piece.tensor = place(tensors::kUp);
      piece.begin += width;
      first.pieces.push_back(piece);
      second.pieces.push_back({.tensor = place(tensors::kDown),
                               .row = 0,
                               .rows = hidden,
                               .column = rank_.tpe * width,
                               .columns = width,
                               .transposed = true,
                               .begin = i * width * hidden,
                               .stride = hidden});
    }
    tensors_.push_back(std::move(first));
    tensors_.push_back(std::move(second));
  }

  bool has(Where where, bool is_moe) const {
    switch (where) {
      case Where::kAll:
        return true;
      case Where::kGroupedQuery:
        return !config_.mla;
      case Where::kLatent:
        return config_.mla.has_value();
      case Where::kDense:
        return !is_moe;
      case Where::kMoe:
      case Where::kExperts:
        return is_moe;
    }
    throw InternalError("a parameter without a place");
  }

  std::vector<size_t> find_all(const std::string& part, const ParameterRule& rule) const {
    std::vector<size_t> sources;
    for (const TensorRule* tensor : rule.tensors) {
      if (tensor == nullptr) continue;
      const auto place = model_.places_.find(part + tensor->name);
      if (place != model_.places_.end()) sources.push_back(place->second);
    }
    return sources;
  }

  // The tensors of one parameter, which are all divided in the same way.
  void add(std::string name, const std::vector<size_t>& sources, const ShardRule& shard,
           Fusion fusion) {
    const TensorInfo& first = model_.inventory_[sources[0]];
    const int64_t ranks = first.is_expert() ? layout_.tpe : layout_.tp;
    const int64_t rank = first.is_expert() ? rank_.tpe : rank_.tp;
    MegatronTensor tensor{.name = std::move(name), .shape = first.shape, .pieces = {}};
    if (is_whole(shard)) {
      tensor.pieces.push_back(whole(sources[0]));
    } else if (shard.division == Division::kVocabulary) {
      const int64_t rows = layout_.padded_vocab / ranks;
      const int64_t begin = std::min(rank * rows, first.shape[0]);
      tensor.pieces.push_back(rows_of(sources[0], begin, std::min(rows, first.shape[0] - begin)));
      tensor.shape[0] = rows;
    } else if (shard.dim == 1) {
      TensorPiece piece = whole(sources[0]);
      piece.columns /= ranks;
      piece.column = rank * piece.columns;
      tensor.pieces.push_back(piece);
      tensor.shape[1] = piece.columns;
    } else {
      const int64_t groups =
          fusion == Fusion::kByKeyValueHead ? config_.num_key_value_heads : ranks;
      tensor.shape[0] = 0;
      for (int64_t group = rank * groups / ranks; group < (rank + 1) * groups / ranks; ++group)
        for (const size_t source : sources) {
          const int64_t rows = model_.inventory_[source].shape[0] / groups;
          tensor.pieces.push_back(rows_of(source, group * rows, rows));
          tensor.shape[0] += rows;
        }
    }
    tensors_.push_back(std::move(tensor));
  }

  // The latents' down projections are divided by Megatron's own linears alone.
  bool is_whole(const ShardRule& rule) const {
    return rule.division == Division::kWhole ||
           (rule.division == Division::kLatents && layout_.transformer_engine);
  }

  TensorPiece whole(size_t source) const {
    return rows_of(source, 0, model_.inventory_[source].shape[0]);
  }
  TensorPiece rows_of(size_t source, int64_t row, int64_t rows) const {
    return {.tensor = source,
            .row = row,
            .rows = rows,
            .column = 0,
            .columns = num_columns(model_.inventory_[source].shape)};
  }

  const MegatronModel& model_;
  const ModelConfig& config_;
  const MegatronLayout& layout_;
  const MegatronRank rank_;
  std::vector<MegatronTensor> tensors_;
};

MegatronModel::MegatronModel(const ModelConfig& config, const MegatronLayout& layout,
                             MtpTensors mtp)
    : config_(config), layout_(layout), mtp_(mtp), inventory_(tensor_inventory(config, mtp)) {
  for (size_t i = 0; i < inventory_.size(); ++i) {
    places_.emplace(inventory_[i].name, i);
    originals_.push_back(i);
  }
  if (mtp == MtpTensors::kLeaveOut) return;
  const size_t embedding = places_.at(tensors::kEmbedding.name);
  const size_t head = config.tie_word_embeddings ? embedding : places_.at(tensors::kHead.name);
  for (int64_t i = 0; i < config.num_mtp_layers; ++i) {
    const std::string prefix = layer_prefix(config.num_layers + i);
    originals_[places_.at(prefix + tensors::kMtpEmbedding.name)] = embedding;
    originals_[places_.at(prefix + tensors::kMtpHead.name)] = head;
  }
}

std::vector<MegatronTensor> MegatronModel::chunk(const MegatronRank& rank, int64_t chunk) const {
  return ChunkBuilder(*this, rank).build(chunk_layers(layout_, rank.pp, chunk));
}

std::vector<std::string> extra_states(const std::vector<MegatronTensor>& tensors) {
  std::set<std::string> names;
  for (const MegatronTensor& tensor : tensors) {
    const std::string module = tensor.name.substr(0, tensor.name.rfind('.'));
    const bool is_linear = module == "output_layer" ||
                           module.find("linear_", module.rfind('.') + 1) != std::string::npos;
    if (is_linear) names.insert(module + "._extra_state");
  }
  return {names.begin(), names.end()};
}

}  // namespace moetron
