#include "moetron/arch/config_from_options.h"

#include "moetron/arch/arch_test_data.h"
#include "moetron/arch/config_writer.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;

template <class Call>
std::string config_error(const Call& call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

Options dense_options() {
  Options options;
  options.model.num_layers = 3;
  options.model.hidden_size = 64;
  options.model.ffn_hidden_size = 96;
  options.model.num_attention_heads = 4;
  options.model.vocab_size = 512;
  options.model.max_position_embeddings = 4096;
  options.model.untie_embeddings_and_output_weights = true;
  return options;
}

// The options that give the model of qwen3_moe_json().
Options qwen_options() {
  Options options = dense_options();
  options.model.num_layers = 4;
  options.model.num_query_groups = 2;
  options.model.kv_channels = 32;
  options.model.rotary_base = 1e6;
  options.moe.num_experts = 8;
  options.moe.moe_router_topk = 2;
  options.moe.moe_ffn_hidden_size = 32;
  options.moe.moe_aux_loss_coeff = 0.001;
  return options;
}

// The options that give the model of deepseek_v3_json(), but its MTP layer.
Options deepseek_options() {
  Options options = dense_options();
  options.model.q_lora_rank = 24;
  options.model.kv_lora_rank = 16;
  options.model.qk_nope_head_dim = 16;
  options.model.qk_rope_head_dim = 8;
  options.model.v_head_dim = 12;
  options.model.rotary_scaling_factor = 40;
  options.model.original_max_position_embeddings = 4096;
  options.model.rotary_mscale = 1.0;
  options.model.rotary_mscale_all_dim = 1.0;
  options.moe.num_experts = 8;
  options.moe.moe_router_topk = 3;
  options.moe.moe_ffn_hidden_size = 32;
  options.moe.enable_shared_expert = true;
  options.moe.num_shared_experts = 1;
  options.moe.first_k_dense_replace = 1;
  options.moe.moe_router_deepseekv3 = true;
  options.moe.moe_router_topk_scaling_factor = 2.5;
  options.moe.moe_router_num_groups = 4;
  options.moe.moe_router_group_topk = 2;
  options.moe.moe_aux_loss_coeff = 0.001;
  options.moe.moe_router_load_balancing_type = LoadBalancing::kSeqAuxLoss;
  return options;
}

std::string meaning(ModelConfig config) {
  config.source = nullptr;
  config.num_mtp_layers = 0;
  return write_model_config(config).dump();
}

TEST(ConfigFromOptions, GivesTheModelOfTheConfigFile) {
  const ModelConfig deepseek = model_config_from_options(deepseek_options());
  EXPECT_EQ(meaning(deepseek), meaning(read_model_config(deepseek_v3_json(), "config.json")));
  EXPECT_EQ(deepseek.moe->bias_update_rate, 1e-3);
  EXPECT_TRUE(deepseek.moe->expert_bias && deepseek.moe->router_fp32);
  EXPECT_EQ(meaning(model_config_from_options(qwen_options())),
            meaning(read_model_config(qwen3_moe_json(), "config.json")));
}

TEST(ConfigFromOptions, ChoosesTheFamily) {
  Options options = dense_options();
  EXPECT_EQ(model_config_from_options(options).family, Family::kLlama);
  EXPECT_EQ(model_config_from_options(options).rms_norm_eps, 1e-5);
  options.model.qk_layernorm = true;
  EXPECT_EQ(model_config_from_options(options).family, Family::kQwen3);
  options.model.qk_layernorm = false;
  options.model.add_qkv_bias = true;
  options.model.untie_embeddings_and_output_weights.reset();
  const ModelConfig qwen2 = model_config_from_options(options);
  EXPECT_EQ(qwen2.family, Family::kQwen2);
  EXPECT_TRUE(qwen2.attention_bias && qwen2.tie_word_embeddings);
  options.model.qk_layernorm = true;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "a dense Qwen model has either qk-layernorm (Qwen3) or add-qkv-bias (Qwen2), not "
            "qk-layernorm (1) and add-qkv-bias (1)");
  options = deepseek_options();
  options.moe.moe_router_deepseekv3 = false;
  EXPECT_EQ(model_config_from_options(options).family, Family::kDeepseekV2);
}

TEST(ConfigFromOptions, RefusesContradictions) {
  Options options = dense_options();
  options.model.num_layers.reset();
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "num-layers is missing: without a model in --load the options must give its shape");
  options = dense_options();
  options.model.num_attention_heads = 6;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "num-attention-heads (6) must divide hidden-size (64) since kv-channels is not given");
  options = dense_options();
  options.model.num_layers = 1000000000;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "num-layers (1000000000) must be from 1 to 1024");
  options = dense_options();
  options.model.rotary_mscale = 1.0;
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
  options = qwen_options();
  options.moe.moe_router_topk = 9;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "moe-router-topk (9) must not exceed num-experts (8)");
  options = qwen_options();
  options.model.add_qkv_bias = true;
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
  options = deepseek_options();
  options.moe.moe_router_group_topk.reset();
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
  options = deepseek_options();
  options.model.model_family = ModelFamily::kLlama;
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
}

TEST(ConfigFromOptions, OptionsMustAgreeWithTheLoadedModel) {
  const ModelConfig qwen = read_model_config(qwen3_moe_json(), "config.json");
  const ModelConfig deepseek = read_model_config(deepseek_v3_json(), "config.json");
  check_options_match(qwen, Options(), "models/start/config.json");
  check_options_match(qwen, qwen_options(), "models/start/config.json");
  check_options_match(deepseek, deepseek_options(), "models/start/config.json");

  Options options;
  options.checkpoint.load = "models/start";
  options.model.num_layers = 32;
  EXPECT_EQ(
      config_error([&] { check_options_match(qwen, options, "models/start/config.json"); }),
      "num-layers (32) contradicts the model that is loaded: models/start/config.json says 4");
  options.model.num_layers.reset();
  options.model.model_family = ModelFamily::kDeepseek;
  EXPECT_EQ(
      config_error([&] { check_options_match(qwen, options, "models/start/config.json"); }),
      "model-family (deepseek) contradicts the model that is loaded: models/start/config.json "
      "says qwen");
  options.model.model_family.reset();
  options.model.untie_embeddings_and_output_weights = false;
  EXPECT_EQ(config_error([&] { check_options_match(qwen, options, "models/start/config.json"); }),
            "untie-embeddings-and-output-weights (false) contradicts the model that is loaded: "
            "models/start/config.json says true");
  options = Options();
  options.moe.moe_router_topk_scaling_factor = 1.0;
  check_options_match(qwen, options, "models/start/config.json");  // no effect on Qwen
  EXPECT_NE(
      config_error([&] { check_options_match(deepseek, options, "models/start/config.json"); }),
      "");
  options = Options();
  options.model.mla_fuse_qkv = true;
  check_options_match(deepseek, options, "models/start/config.json");
  EXPECT_EQ(config_error([&] { check_options_match(qwen, options, "models/start/config.json"); }),
            "mla-fuse-qkv (true) needs q-lora-rank, which models/start/config.json does not give");
}

TEST(ConfigFromOptions, TrainingSettingsReplaceThoseOfTheFile) {
  ModelConfig config = read_model_config(deepseek_v3_json(), "config.json");
  Options options;
  options.moe.moe_router_bias_update_rate = 0.01;
  apply_training_options(options, config);
  EXPECT_EQ(config.moe->bias_update_rate, 0.01);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kSequence);  // the file's
  options.moe.moe_aux_loss_coeff = 0.5;
  apply_training_options(options, config);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kSequence);  // still the file's
  EXPECT_EQ(config.moe->aux_loss_coeff, 0.5);
  options.moe.moe_router_load_balancing_type = LoadBalancing::kAuxLoss;
  apply_training_options(options, config);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kBatch);
  options.moe.moe_aux_loss_coeff.reset();
  options.moe.moe_router_load_balancing_type = LoadBalancing::kNone;
  apply_training_options(options, config);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kNone);
  options.moe.moe_aux_loss_coeff = 0.0;
  apply_training_options(options, config);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kNone);
}

}  // namespace
}  // namespace moetron
