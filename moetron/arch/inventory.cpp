#include "moetron/arch/inventory.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

class InventoryBuilder {
 public:
  explicit InventoryBuilder(const ModelConfig& config) : config_(config) {}

  // The outermost tensors, the layers between them.
  std::vector<TensorInfo> build(MtpTensors mtp) {
    add_embedding();
    for (int64_t layer = 0; layer < config_.num_layers; ++layer)
      add_layer(layer, config_.is_moe_layer(layer));
    if (mtp == MtpTensors::kInclude)
      for (int64_t i = 0; i < config_.num_mtp_layers; ++i) add_mtp_layer(config_.num_layers + i);
    enter_layer(-1, false);
    add_head();
    return std::move(tensors_);
  }
  std::vector<TensorInfo> build_ends() {
    add_embedding();
    add_head();
    return std::move(tensors_);
  }
  std::vector<TensorInfo> build_layer(int64_t layer) {
    listed_experts_ = 1;
    add_layer(layer, config_.is_moe_layer(layer));
    return std::move(tensors_);
  }

 private:
  // Names that follow are within this layer.
  void enter_layer(int64_t layer, bool is_mtp) {
    layer_ = layer;
    is_mtp_ = is_mtp;
    prefix_ = layer < 0 ? "" : layer_prefix(layer);
  }

  // `part`: the prefix within the layer.
  TensorInfo& add(const std::string& part, const TensorRule& rule, std::vector<int64_t> shape) {
    TensorInfo info;
    info.name = prefix_ + part + rule.name;
    info.shape = std::move(shape);
    info.shard = rule.shard;
    info.layer = layer_;
    info.is_mtp = is_mtp_;
    return tensors_.emplace_back(std::move(info));
  }

  void add_embedding() { add("", tensors::kEmbedding, {config_.vocab_size, config_.hidden_size}); }

  void add_head() {
    add("", tensors::kFinalNorm, {config_.hidden_size});
    if (!config_.tie_word_embeddings)
      add("", tensors::kHead, {config_.vocab_size, config_.hidden_size});
  }

  void add_attention(const TensorRule& rule, std::vector<int64_t> shape) {
    add(tensors::kAttention, rule, std::move(shape));
  }

  void add_grouped_query_attention() {
    const int64_t hidden = config_.hidden_size;
    const int64_t query = config_.num_attention_heads * config_.head_dim;
    const int64_t key = config_.num_key_value_heads * config_.head_dim;
    add_attention(tensors::kQuery, {query, hidden});
    if (config_.attention_bias) add_attention(tensors::kQueryBias, {query});
    add_attention(tensors::kKey, {key, hidden});
    if (config_.attention_bias) add_attention(tensors::kKeyBias, {key});
    add_attention(tensors::kValue, {key, hidden});
    if (config_.attention_bias) add_attention(tensors::kValueBias, {key});
    add_attention(tensors::kAttentionOut, {hidden, query});
    if (config_.qk_norm) {
      add_attention(tensors::kQueryNorm, {config_.head_dim});
      add_attention(tensors::kKeyNorm, {config_.head_dim});
    }
  }

  void add_latent_attention(const MlaConfig& mla) {
    const int64_t hidden = config_.hidden_size;
    const int64_t heads = config_.num_attention_heads;
    const int64_t query = heads * mla.qk_head_dim();
    if (mla.q_lora_rank == 0) {
      add_attention(tensors::kQuery, {query, hidden});
    } else {
      add_attention(tensors::kQueryDown, {mla.q_lora_rank, hidden});
      add_attention(tensors::kQueryLatentNorm, {mla.q_lora_rank});
      add_attention(tensors::kQueryUp, {query, mla.q_lora_rank});
    }
    add_attention(tensors::kKeyValueDown, {mla.kv_lora_rank + mla.qk_rope_head_dim, hidden});
    add_attention(tensors::kKeyValueLatentNorm, {mla.kv_lora_rank});
    add_attention(tensors::kKeyValueUp,
                  {heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank});
    add_attention(tensors::kAttentionOut, {hidden, heads * mla.v_head_dim});
  }

  void add_mlp(const std::string& part, int64_t width, int64_t expert = -1) {
    const int64_t hidden = config_.hidden_size;
    add(part, tensors::kGate, {width, hidden}).expert = expert;
    add(part, tensors::kUp, {width, hidden}).expert = expert;
    add(part, tensors::kDown, {hidden, width}).expert = expert;
  }

  void add_moe(const MoeConfig& moe) {
    add(tensors::kRouter, tensors::kRouterWeight, {moe.num_experts, config_.hidden_size});
    if (moe.expert_bias) {
      TensorInfo& bias = add(tensors::kRouter, tensors::kRouterBias, {moe.num_experts});
      bias.dtype = StoredDtype::kFloat32;
      bias.is_buffer = true;
    }
    for (int64_t expert = 0; expert < std::min(moe.num_experts, listed_experts_); ++expert)
      add_mlp(concat(tensors::kExperts, expert, "."), moe.expert_intermediate_size, expert);
    if (moe.shared_intermediate_size == 0) return;
    add_mlp(moe.shared_expert_gate ? tensors::kGatedSharedExpert : tensors::kSharedExpert,
            moe.shared_intermediate_size);
    if (moe.shared_expert_gate) add("", tensors::kSharedExpertGate, {1, config_.hidden_size});
  }

  void add_layer_body(bool is_moe) {
    add("", tensors::kInputNorm, {config_.hidden_size});
    if (config_.mla) {
      add_latent_attention(*config_.mla);
    } else {
      add_grouped_query_attention();
    }
    add("", tensors::kPostAttentionNorm, {config_.hidden_size});
    if (is_moe) {
      add_moe(*config_.moe);
    } else {
      add_mlp(tensors::kMlp, config_.intermediate_size);
    }
  }

  void add_layer(int64_t layer, bool is_moe) {
    enter_layer(layer, false);
    add_layer_body(is_moe);
  }

  void add_mtp_layer(int64_t layer) {
    const int64_t hidden = config_.hidden_size;
    enter_layer(layer, true);
    add("", tensors::kMtpEmbedding, {config_.vocab_size, hidden});
    add("", tensors::kMtpEmbeddingNorm, {hidden});
    add("", tensors::kMtpHiddenNorm, {hidden});
    add("", tensors::kMtpJoin, {hidden, 2 * hidden});
    add_layer_body(config_.moe.has_value());
    add("", tensors::kMtpHeadNorm, {hidden});
    add("", tensors::kMtpHead, {config_.vocab_size, hidden});
  }

  const ModelConfig& config_;
  std::vector<TensorInfo> tensors_;
  std::string prefix_;
  int64_t layer_ = -1;
  bool is_mtp_ = false;
  int64_t listed_experts_ = std::numeric_limits<int64_t>::max();  // of a layer
};

}  // namespace

int64_t TensorInfo::num_elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<TensorInfo> tensor_inventory(const ModelConfig& config, MtpTensors mtp) {
  return InventoryBuilder(config).build(mtp);
}

std::vector<TensorInfo> end_tensors(const ModelConfig& config) {
  return InventoryBuilder(config).build_ends();
}

std::vector<TensorInfo> layer_tensors(const ModelConfig& config, int64_t layer) {
  return InventoryBuilder(config).build_layer(layer);
}

DivisionSettings division_settings(const ModelConfig& config, bool mla_replicate_l1) {
  return {.num_key_value_heads = config.num_key_value_heads, .mla_replicate_l1 = mla_replicate_l1};
}

int64_t elements_on_rank(const TensorInfo& tensor, const ParallelSizes& sizes,
                         const DivisionSettings& settings) {
  const int64_t ranks = tensor.is_expert() ? sizes.tpe : sizes.tp;
  const TensorShard shard = tensor_shard(tensor.shard, /*rank=*/0, ranks, settings);
  const int64_t size = tensor.shape[size_t(shard.dim)];
  MT_CHECK(size % shard.count == 0 || tensor.shard.division == Division::kVocabulary, tensor.name,
           ": ", size, " in ", shard.count, " parts");
  return tensor.num_elements() / size * padded_part(size, shard.count);
}

int64_t copies_on_ranks(const TensorInfo& tensor, const ParallelSizes& sizes,
                        const DivisionSettings& settings) {
  const int64_t ranks = tensor.is_expert() ? sizes.tpe : sizes.tp;
  const int64_t copies = tensor_shard(tensor.shard, /*rank=*/0, ranks, settings).copies;
  return (tensor.is_expert() ? sizes.edp : sizes.dp) * (copies == 0 ? ranks : copies);
}

int64_t count_parameters(const std::vector<TensorInfo>& inventory) {
  int64_t total = 0;
  for (const TensorInfo& tensor : inventory) total += tensor.num_elements();
  return total;
}

int64_t count_stored_bytes(const std::vector<TensorInfo>& inventory, const ModelConfig& config) {
  const int64_t model_bytes = config.dtype == "float32" ? 4 : 2;
  int64_t total = 0;
  for (const TensorInfo& tensor : inventory)
    total += tensor.num_elements() * (tensor.dtype == StoredDtype::kFloat32 ? 4 : model_bytes);
  return total;
}

}  // namespace moetron
