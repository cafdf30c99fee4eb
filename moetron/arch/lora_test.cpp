#include "moetron/arch/lora.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/arch/adapter_config.h"
#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"

namespace moetron {
namespace {

using Names = std::vector<std::string>;

ModelConfig tiny_model() {
  return read_model_config(parse_json(R"({"model_type": "deepseek_v3", "vocab_size": 61,
  "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 8, "num_key_value_heads": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "n_routed_experts": 8,
  "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "n_group": 4,
  "topk_group": 2, "norm_topk_prob": true, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "routed_scaling_factor": 2.5, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
  "qk_rope_head_dim": 8, "v_head_dim": 8, "max_position_embeddings": 128, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "initializer_range": 0.1})",
                                      "tiny"),
                           "tiny");
}

TEST(LoraTargets, AreTheLinearLayersOfTheModel) {
  const Names all = {
      "q_a_proj", "q_b_proj",  "kv_a_proj_with_mqa",   "kv_b_proj",        "o_proj", "gate_proj",
      "up_proj",  "down_proj", "experts.gate_up_proj", "experts.down_proj"};
  EXPECT_EQ(find_lora_targets(tiny_model(), {}), all);
  EXPECT_EQ(find_lora_targets(tiny_model(), {"experts", "o_proj"}),
            (Names{"o_proj", "experts.gate_up_proj", "experts.down_proj"}));
  try {
    find_lora_targets(tiny_model(), {"q_proj"});
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(
        std::string(error.what()),
        "lora-targets (q_proj) names no linear layer of attention, MLPs or experts; the model "
        "has q_a_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj, gate_proj, up_proj, "
        "down_proj, experts.gate_up_proj, experts.down_proj");
  }
}

TEST(LoraTargets, HaveTheNamesOfPeft) {
  const LoraConfig both{.rank = 4, .alpha = 8, .targets = find_lora_targets(tiny_model(), {})};
  const LoraConfig down{.rank = 4, .alpha = 8, .targets = {"experts.down_proj"}};
  const LoraConfig gate_up{.rank = 4, .alpha = 8, .targets = {"experts.gate_up_proj"}};
  const std::string mlp = "model.layers.1.mlp.experts.5.";
  EXPECT_EQ(lora_name(both, "model.layers.0.self_attn.q_a_proj.weight", LoraFactor::kA),
            "base_model.model.model.layers.0.self_attn.q_a_proj.lora_A.weight");
  EXPECT_EQ(lora_name(both, mlp + "up_proj.weight", LoraFactor::kB),
            "base_model.model.model.layers.1.mlp.experts.base_layer.lora_B.weight");
  EXPECT_EQ(lora_name(gate_up, mlp + "up_proj.weight", LoraFactor::kB),
            "base_model.model.model.layers.1.mlp.experts.lora_B.weight");
  for (const LoraConfig& lora : {both, down})
    EXPECT_EQ(lora_name(lora, mlp + "down_proj.weight", LoraFactor::kA),
              "base_model.model.model.layers.1.mlp.experts.lora_A.weight");
  EXPECT_EQ(lora_target("model.layers.1.mlp.gate.weight"), "");
  EXPECT_EQ(lora_target("lm_head.weight"), "");
  EXPECT_EQ(expert_of(mlp + "down_proj.weight"), 5);
}

TEST(AdapterConfig, IsReadAsItWasWritten) {
  const ModelConfig model = tiny_model();
  for (const Names& targets : {Names{}, Names{"o_proj", "down_proj"}, Names{"experts"}}) {
    const AdapterConfig written{
        .lora = {.rank = 8, .alpha = 4, .targets = find_lora_targets(model, targets)},
        .base = "/models/base"};
    const AdapterConfig read =
        read_adapter_config(write_adapter_config(written, model), model, "here");
    EXPECT_EQ(read.lora, written.lora);
    EXPECT_EQ(read.base, written.base);
  }
}

TEST(AdapterConfig, RefusesWhatWouldBeAnotherModel) {
  const ModelConfig model = tiny_model();
  const Json good = write_adapter_config({{8, 16, {"o_proj"}}, "/models/base"}, model);
  const auto refusal = [&](const char* key, const Json& value) {
    Json json = good;
    json[key] = value;
    try {
      read_adapter_config(json, model, "here");
    } catch (const InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal("lora_dropout", 0.1), "");  // acts in training alone
  EXPECT_EQ(refusal("use_dora", true), "here: use_dora (true) is not there in Moetron's adapters");
  EXPECT_EQ(refusal("rank_pattern", {{"o_proj", 4}}),
            R"(here: rank_pattern ({"o_proj":4}) is not there in Moetron's adapters)");
  EXPECT_EQ(refusal("peft_type", "LOHA"), "here: peft_type (\"LOHA\") must be LORA");
  EXPECT_EQ(refusal("target_modules", "all-linear"),
            "here: target_modules (\"all-linear\") must list the modules");
  EXPECT_EQ(
      refusal("target_modules", {"lm_head"}),
      "here: the target lm_head is no linear layer of attention, MLPs or experts of its model");
}

}  // namespace
}  // namespace moetron
