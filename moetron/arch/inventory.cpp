#include "moetron/arch/inventory.h"

#include <functional>
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
    const int64_t vocab = config_.vocab_size;
    const int64_t hidden = config_.hidden_size;
    add("model.embed_tokens.weight", {vocab, hidden});
    for (int64_t layer = 0; layer < config_.num_layers; ++layer)
      add_layer(layer, config_.is_moe_layer(layer));
    if (mtp == MtpTensors::kInclude)
      for (int64_t i = 0; i < config_.num_mtp_layers; ++i) add_mtp_layer(config_.num_layers + i);
    enter_layer(-1, false);
    add("model.norm.weight", {hidden});
    if (!config_.tie_word_embeddings) add("lm_head.weight", {vocab, hidden});
    return std::move(tensors_);
  }

 private:
  // Names that follow are within this layer.
  void enter_layer(int64_t layer, bool is_mtp) {
    layer_ = layer;
    is_mtp_ = is_mtp;
    prefix_ = layer < 0 ? "" : concat("model.layers.", layer, ".");
  }

  TensorInfo& add(const std::string& name, std::vector<int64_t> shape) {
    TensorInfo info;
    info.name = prefix_ + name;
    info.shape = std::move(shape);
    info.layer = layer_;
    info.is_mtp = is_mtp_;
    return tensors_.emplace_back(std::move(info));
  }

  void add_grouped_query_attention() {
    const int64_t hidden = config_.hidden_size;
    const int64_t query = config_.num_attention_heads * config_.head_dim;
    const int64_t key = config_.num_key_value_heads * config_.head_dim;
    for (const auto& [name, width] : {std::pair("q", query), {"k", key}, {"v", key}}) {
      add(concat("self_attn.", name, "_proj.weight"), {width, hidden});
      if (config_.attention_bias) add(concat("self_attn.", name, "_proj.bias"), {width});
    }
    add("self_attn.o_proj.weight", {hidden, query});
    if (config_.qk_norm) {
      add("self_attn.q_norm.weight", {config_.head_dim});
      add("self_attn.k_norm.weight", {config_.head_dim});
    }
  }

  void add_latent_attention(const MlaConfig& mla) {
    const int64_t hidden = config_.hidden_size;
    const int64_t heads = config_.num_attention_heads;
    if (mla.q_lora_rank == 0) {
      add("self_attn.q_proj.weight", {heads * mla.qk_head_dim(), hidden});
    } else {
      add("self_attn.q_a_proj.weight", {mla.q_lora_rank, hidden});
      add("self_attn.q_a_layernorm.weight", {mla.q_lora_rank});
      add("self_attn.q_b_proj.weight", {heads * mla.qk_head_dim(), mla.q_lora_rank});
    }
    add("self_attn.kv_a_proj_with_mqa.weight", {mla.kv_lora_rank + mla.qk_rope_head_dim, hidden});
    add("self_attn.kv_a_layernorm.weight", {mla.kv_lora_rank});
    add("self_attn.kv_b_proj.weight",
        {heads * (mla.qk_nope_head_dim + mla.v_head_dim), mla.kv_lora_rank});
    add("self_attn.o_proj.weight", {hidden, heads * mla.v_head_dim});
  }

  void add_mlp(const std::string& name, int64_t width, int64_t expert = -1) {
    const int64_t hidden = config_.hidden_size;
    add(name + ".gate_proj.weight", {width, hidden}).expert = expert;
    add(name + ".up_proj.weight", {width, hidden}).expert = expert;
    add(name + ".down_proj.weight", {hidden, width}).expert = expert;
  }

  void add_moe(const MoeConfig& moe) {
    add("mlp.gate.weight", {moe.num_experts, config_.hidden_size});
    if (moe.expert_bias) {
      TensorInfo& bias = add("mlp.gate.e_score_correction_bias", {moe.num_experts});
      bias.dtype = StoredDtype::kFloat32;
      bias.is_buffer = true;
    }
    for (int64_t expert = 0; expert < moe.num_experts; ++expert)
      add_mlp(concat("mlp.experts.", expert), moe.expert_intermediate_size, expert);
    if (moe.shared_intermediate_size > 0)
      add_mlp("mlp.shared_experts", moe.shared_intermediate_size);
  }

  void add_layer_body(bool is_moe) {
    add("input_layernorm.weight", {config_.hidden_size});
    if (config_.mla) {
      add_latent_attention(*config_.mla);
    } else {
      add_grouped_query_attention();
    }
    add("post_attention_layernorm.weight", {config_.hidden_size});
    if (is_moe) {
      add_moe(*config_.moe);
    } else {
      add_mlp("mlp", config_.intermediate_size);
    }
  }

  void add_layer(int64_t layer, bool is_moe) {
    enter_layer(layer, false);
    add_layer_body(is_moe);
  }

  void add_mtp_layer(int64_t layer) {
    const int64_t hidden = config_.hidden_size;
    enter_layer(layer, true);
    add("embed_tokens.weight", {config_.vocab_size, hidden});
    add("enorm.weight", {hidden});
    add("hnorm.weight", {hidden});
    add("eh_proj.weight", {hidden, 2 * hidden});
    add_layer_body(config_.moe.has_value());
    add("shared_head.norm.weight", {hidden});
    add("shared_head.head.weight", {config_.vocab_size, hidden});
  }

  const ModelConfig& config_;
  std::vector<TensorInfo> tensors_;
  std::string prefix_;
  int64_t layer_ = -1;
  bool is_mtp_ = false;
};

}  // namespace

int64_t TensorInfo::num_elements() const {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

std::vector<TensorInfo> tensor_inventory(const ModelConfig& config, MtpTensors mtp) {
  return InventoryBuilder(config).build(mtp);
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
