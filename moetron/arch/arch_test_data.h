// Inputs that several tests of this folder share.
#pragma once

#include <filesystem>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error_test_support.h"

namespace moetron {

// Published config.json files, beside the source tree; absent at a user's.
inline std::filesystem::path published_configs() {
  return "../shared/data/configs";
}

#define MT_SKIP_WITHOUT_PUBLISHED_CONFIGS() \
  if (!std::filesystem::exists(published_configs())) GTEST_SKIP() << "no published configs here"

inline Json published_config(const std::string& folder) {
  return read_json(published_configs() / folder / "config.json");
}

// The model of a published config.json, its weights in bf16.
inline ModelConfig published_model(const std::string& folder) {
  Json json = published_config(folder);
  json.erase("quantization_config");
  return read_model_config(json, folder);
}

inline Json qwen3_moe_json() {
  return parse_json(R"({
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 512,
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
    "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": true, "rope_theta": 1000000.0,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16", "my_note": {"kept": [1, 2]}})",
                    "config.json");
}

// Experts behind attention with biases and without norms, which no class of transformers has.
inline Json moetron_json() {
  Json json = qwen3_moe_json();
  json["architectures"] = {"MoetronForCausalLM"};
  json["model_type"] = "moetron";
  json["qkv_bias"] = true;
  json["use_qk_norm"] = false;
  return json;
}

inline Json qwen2_moe_json() {
  Json json = qwen3_moe_json();
  json["architectures"] = {"Qwen2MoeForCausalLM"};
  json["model_type"] = "qwen2_moe";
  json["shared_expert_intermediate_size"] = 64;
  return json;
}

inline Json deepseek_v3_json() {
  return parse_json(R"({
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 512,
    "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
    "num_hidden_layers": 3, "first_k_dense_replace": 1, "num_attention_heads": 4,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 3, "n_group": 4,
    "topk_group": 2, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8, "v_head_dim": 12, "num_nextn_predict_layers": 1,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096,
      "mscale": 1.0, "mscale_all_dim": 1.0}, "torch_dtype": "bfloat16"})",
                    "config.json");
}

inline Json llama_json() {
  return parse_json(R"({
    "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "torch_dtype": "bfloat16"})",
                    "config.json");
}

// The message of the error that reading throws, or "" if it throws none.
inline std::string reading_error(const Json& json) {
  return error_of<InputError>([&] { read_model_config(json, "dir/config.json"); });
}

}  // namespace moetron
