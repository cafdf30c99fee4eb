#include "moetron/arch/config_writer.h"

#include <string>

#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/arch/families.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

Json rope_scaling(const RopeConfig& rope) {
  if (rope.type == RopeType::kDefault) return nullptr;
  Json scaling = {{"factor", rope.factor}};
  const char* type = "linear";
  if (rope.type == RopeType::kLlama3) {
    type = "llama3";
    scaling["low_freq_factor"] = rope.low_freq_factor;
    scaling["high_freq_factor"] = rope.high_freq_factor;
    scaling["original_max_position_embeddings"] = rope.original_max_position_embeddings;
  } else if (rope.type == RopeType::kYarn) {
    type = "yarn";
    scaling["original_max_position_embeddings"] = rope.original_max_position_embeddings;
    scaling["beta_fast"] = rope.beta_fast;
    scaling["beta_slow"] = rope.beta_slow;
    if (rope.mscale) scaling["mscale"] = *rope.mscale;
    if (rope.mscale_all_dim) scaling["mscale_all_dim"] = *rope.mscale_all_dim;
    if (rope.attention_factor) scaling["attention_factor"] = *rope.attention_factor;
  }
  // Old releases and DeepSeek's own code read the first, new releases the second.
  scaling["type"] = type;
  scaling["rope_type"] = type;
  return scaling;
}

void add_deepseek_keys(const ModelConfig& config, Json& out) {
  const MlaConfig& mla = *config.mla;
  const MoeConfig& moe = *config.moe;
  const bool v3 = config.family == Family::kDeepseekV3;
  out["q_lora_rank"] = mla.q_lora_rank == 0 ? Json(nullptr) : Json(mla.q_lora_rank);
  out["kv_lora_rank"] = mla.kv_lora_rank;
  out["qk_nope_head_dim"] = mla.qk_nope_head_dim;
  out["qk_rope_head_dim"] = mla.qk_rope_head_dim;
  out["v_head_dim"] = mla.v_head_dim;
  out["moe_intermediate_size"] = moe.expert_intermediate_size;
  out["n_routed_experts"] = moe.num_experts;
  out["n_shared_experts"] = moe.num_shared_experts;
  out["num_experts_per_tok"] = moe.top_k;
  out["first_k_dense_replace"] = moe.first_k_dense_replace;
  out["moe_layer_freq"] = 1;
  out["n_group"] = moe.num_groups;
  out["topk_group"] = moe.group_topk;
  out["topk_method"] = v3 ? "noaux_tc" : moe.num_groups > 1 ? "group_limited_greedy" : "greedy";
  out["scoring_func"] = v3 ? "sigmoid" : "softmax";
  out["norm_topk_prob"] = moe.norm_topk_prob;
  out["routed_scaling_factor"] = moe.routed_scaling_factor;
  out["aux_loss_alpha"] = moe.aux_loss == AuxLossKind::kNone ? 0.0 : moe.aux_loss_coeff;
  out["seq_aux"] = moe.aux_loss != AuxLossKind::kBatch;
  out["ep_size"] = 1;
  if (v3) {
    out["num_nextn_predict_layers"] = config.num_mtp_layers;
    out["rope_interleave"] = config.rope.interleaved;
  }
}

void add_qwen_moe_keys(const MoeConfig& moe, Json& out) {
  out["moe_intermediate_size"] = moe.expert_intermediate_size;
  out["num_experts"] = moe.num_experts;
  out["num_experts_per_tok"] = moe.top_k;
  out["norm_topk_prob"] = moe.norm_topk_prob;
  out["decoder_sparse_step"] = moe.decoder_sparse_step;
  out["mlp_only_layers"] = moe.mlp_only_layers;
  out["router_aux_loss_coef"] = moe.aux_loss == AuxLossKind::kNone ? 0.0 : moe.aux_loss_coeff;
  out["output_router_logits"] = false;
  if (moe.shared_expert_gate) out["shared_expert_intermediate_size"] = moe.shared_intermediate_size;
}

// Every key that the family's classes read, from the struct alone.
Json complete_config(const ModelConfig& config) {
  Json out;
  out["architectures"] = {traits_of(config.family).class_name};
  out["model_type"] = family_name(config.family);
  out["vocab_size"] = config.vocab_size;
  out["hidden_size"] = config.hidden_size;
  out["intermediate_size"] = config.intermediate_size;
  out["num_hidden_layers"] = config.num_layers;
  out["num_attention_heads"] = config.num_attention_heads;
  out["num_key_value_heads"] = config.num_key_value_heads;
  out["hidden_act"] = "silu";
  out["max_position_embeddings"] = config.max_position_embeddings;
  out["initializer_range"] = config.initializer_range;
  out["rms_norm_eps"] = config.rms_norm_eps;
  out["use_cache"] = true;
  out["tie_word_embeddings"] = config.tie_word_embeddings;
  out["rope_theta"] = config.rope.theta;
  out["rope_scaling"] = rope_scaling(config.rope);
  out["attention_dropout"] = 0.0;
  out["bos_token_id"] = nullptr;
  out["eos_token_id"] = nullptr;
  out["torch_dtype"] = config.dtype;
  const FamilyTraits& traits = traits_of(config.family);
  if (config.family == Family::kMoetron) {
    out["qkv_bias"] = config.attention_bias;
    out["use_qk_norm"] = config.qk_norm;
  } else if (!traits.attention_bias) {
    out["attention_bias"] = false;
  }
  // Qwen2's classes have no such key, but read it where it is given.
  const bool plain_heads = config.head_dim * config.num_attention_heads == config.hidden_size;
  const bool lacks_key = config.family == Family::kQwen2 || config.family == Family::kQwen2Moe;
  if (!config.mla && (!lacks_key || !plain_heads)) out["head_dim"] = config.head_dim;
  if (config.family == Family::kLlama) out["mlp_bias"] = false;
  if (traits.needs_null_window) out["sliding_window"] = nullptr;
  if (config.mla) {
    add_deepseek_keys(config, out);
  } else if (traits.kind != ModelFamily::kLlama) {
    out["use_sliding_window"] = false;
    out["sliding_window"] = nullptr;
    out["max_window_layers"] = config.num_layers;
    if (config.moe) add_qwen_moe_keys(*config.moe, out);
  }
  return out;
}

// Replaces the spellings that only transformers 5 reads; an older release would take a default.
void use_common_spelling(const Json& complete, Json& out) {
  if (out.erase("rope_parameters") > 0 || !out.contains("rope_theta")) {
    out["rope_theta"] = complete.at("rope_theta");
    out["rope_scaling"] = complete.at("rope_scaling");
  }
  if (out.erase("dtype") > 0) out["torch_dtype"] = complete.at("torch_dtype");
  if (out.erase("num_local_experts") > 0 && complete.contains("num_experts"))
    out["num_experts"] = complete.at("num_experts");
  if (out.erase("num_mtp_layers") > 0)
    out["num_nextn_predict_layers"] = complete.at("num_nextn_predict_layers");
}

}  // namespace

Json write_model_config(const ModelConfig& config) {
  const Json complete = complete_config(config);
  if (config.source.is_null()) return complete;
  const Json before = complete_config(read_model_config(config.source, "config.json"));
  Json out = config.source;
  if (config.num_layers != before.at("num_hidden_layers").get<int64_t>()) out.erase("layer_types");
  use_common_spelling(complete, out);
  out.erase(
      "quantization_config");  // of the weights that were read, which stay no longer in 8 bits
  for (const auto& [key, value] : complete.items()) {
    if (!before.contains(key) || before.at(key) != value) out[key] = value;
  }
  return out;
}

}  // namespace moetron
