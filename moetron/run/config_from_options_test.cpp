#include "moetron/run/config_from_options.h"

#include <gmock/gmock.h>

#include "moetron/arch/arch_test_data.h"
#include "moetron/arch/config_writer.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;
using ::testing::HasSubstr;

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
  options.model.qk_layernorm = true;
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
  options = dense_options();
  options.model.model_family = ModelFamily::kQwen;
  EXPECT_EQ(model_config_from_options(options).family, Family::kLlama);
  check_options_match(model_config_from_options(options), options, "config.json");
  options = deepseek_options();
  options.model.qk_layernorm = true;  // as published scripts have it: the latents' norms
  EXPECT_EQ(model_config_from_options(options).family, Family::kDeepseekV3);
  EXPECT_FALSE(model_config_from_options(options).qk_norm);
  options.moe.moe_router_deepseekv3 = false;
  EXPECT_EQ(model_config_from_options(options).family, Family::kDeepseekV2);
}

// Norms and biases are there if they are asked for, in a class of transformers or one of our own,
// and config.json says so.
TEST(ConfigFromOptions, NormsAndBiasesAreThoseThatAreGiven) {
  struct Case {
    bool has_experts, norm, bias;
    Family family;
  };
  for (const Case& c : {Case{true, true, false, Family::kQwen3Moe},
                        {true, false, true, Family::kMoetron},
                        {true, true, true, Family::kMoetron},
                        {true, false, false, Family::kMoetron},
                        {false, true, true, Family::kMoetron},
                        {false, true, false, Family::kQwen3},
                        {false, false, true, Family::kQwen2},
                        {false, false, false, Family::kLlama}}) {
    Options options = qwen_options();
    options.model.model_family = ModelFamily::kQwen;
    if (!c.has_experts) options.moe = MoeOptions();
    options.model.qk_layernorm.reset();  // not false: what is left out is not there
    if (c.norm) options.model.qk_layernorm = true;
    if (c.bias) options.model.add_qkv_bias = true;
    const ModelConfig made = model_config_from_options(options);
    const ModelConfig read = read_model_config(write_model_config(made), "config.json");
    for (const ModelConfig& config : {made, read}) {
      EXPECT_EQ(config.family, c.family);
      EXPECT_EQ(config.qk_norm, c.norm);
      EXPECT_EQ(config.attention_bias, c.bias);
      EXPECT_EQ(config.moe.has_value(), c.has_experts);
    }
    check_options_match(read, options, "config.json");
    options.model.qk_layernorm = !c.norm;
    EXPECT_THAT(config_error([&] { check_options_match(read, options, "config.json"); }),
                HasSubstr("qk-layernorm"));
  }
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
  options.model.num_attention_heads = 64;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "hidden-size (64) over num-attention-heads (64), the width of a head without "
            "kv-channels, must be even for rotary embeddings");
  options = dense_options();
  options.model.num_layers = 1000000000;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "num-layers (1000000000) must be from 1 to 1024");
  options = dense_options();
  options.model.rotary_mscale = 1.0;
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
  options = dense_options();
  options.model.ffn_hidden_size.reset();
  EXPECT_EQ(model_config_from_options(options).intermediate_size, 128);  // of 64: 170 in 64s
  options.model.hidden_size = 4096;
  EXPECT_EQ(model_config_from_options(options).intermediate_size, 10880);
  options = qwen_options();
  options.moe.moe_router_topk = 9;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "moe-router-topk (9) must be at most num-experts (8)");
  options = deepseek_options();
  options.model.qk_layernorm = false;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "qk-layernorm (false) does not go with model-family (deepseek), which norms its "
            "latents in any case");
  options = dense_options();
  options.moe.enable_shared_expert = true;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "enable-shared-expert (true) needs num-experts, which is not given");
  options = dense_options();
  options.moe.moe_router_topk = 2;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "moe-router-topk needs num-experts, which is not given");
  options = deepseek_options();
  options.moe.moe_router_group_topk.reset();
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
  options = deepseek_options();
  options.model.model_family = ModelFamily::kLlama;
  EXPECT_NE(config_error([&] { model_config_from_options(options); }), "");
}

// Else a run could save and never resume.
TEST(ConfigFromOptions, WhatIsTakenIsReadBackFromTheConfigFile) {
  const auto is_taken = [](const Options& options) {
    std::string written;
    try {
      written = meaning(model_config_from_options(options));
    } catch (const ConfigError&) {
      return false;
    }
    EXPECT_EQ(meaning(read_model_config(parse_json(written, "written"), "written")), written);
    return true;
  };
  EXPECT_TRUE(is_taken(deepseek_options()) && is_taken(qwen_options()) &&
              is_taken(dense_options()));
  // What the table of options lets pass, at its ends.
  constexpr int64_t kLargest = 2147483647;
  const auto try_whole = [&](auto group, auto field) {
    for (const Options& base : {deepseek_options(), qwen_options(), dense_options()}) {
      for (const int64_t value : {int64_t{1}, kLargest}) {
        Options options = base;
        options.*group.*field = value;
        is_taken(options);
      }
    }
  };
  for (const auto field :
       {&ModelOptions::num_layers, &ModelOptions::hidden_size, &ModelOptions::ffn_hidden_size,
        &ModelOptions::num_attention_heads, &ModelOptions::num_query_groups,
        &ModelOptions::kv_channels, &ModelOptions::max_position_embeddings,
        &ModelOptions::original_max_position_embeddings, &ModelOptions::q_lora_rank,
        &ModelOptions::kv_lora_rank, &ModelOptions::qk_rope_head_dim,
        &ModelOptions::qk_nope_head_dim, &ModelOptions::v_head_dim, &ModelOptions::vocab_size})
    try_whole(&Options::model, field);
  for (const auto field :
       {&MoeOptions::num_experts, &MoeOptions::moe_router_topk, &MoeOptions::moe_ffn_hidden_size,
        &MoeOptions::num_shared_experts, &MoeOptions::first_k_dense_replace,
        &MoeOptions::moe_router_num_groups, &MoeOptions::moe_router_group_topk})
    try_whole(&Options::moe, field);
  const auto try_real = [&](auto group, auto field, double low, double high) {
    for (const Options& base : {deepseek_options(), qwen_options(), dense_options()}) {
      for (const double value : {low, 1.0, high}) {
        Options options = base;
        options.*group.*field = value;
        is_taken(options);
      }
    }
  };
  for (const auto field : {&ModelOptions::norm_epsilon, &ModelOptions::rotary_base,
                           &ModelOptions::rotary_scaling_factor, &ModelOptions::rotary_mscale,
                           &ModelOptions::rotary_mscale_all_dim, &ModelOptions::rotary_beta_fast,
                           &ModelOptions::rotary_beta_slow})
    try_real(&Options::model, field, 1e-300, 1e300);
  try_real(&Options::moe, &MoeOptions::moe_router_topk_scaling_factor, 1e-300, 1e300);
  try_real(&Options::moe, &MoeOptions::moe_aux_loss_coeff, 0, 1e300);

  Options options = qwen_options();
  options.moe.moe_ffn_hidden_size = 1000000;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "moe-ffn-hidden-size (1000000) must be from 1 to 262144");
  options = qwen_options();
  options.model.norm_epsilon = 1e-38;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "norm-epsilon (1e-38) must be from 1e-30 to 1");
  options = deepseek_options();
  options.moe.num_experts = options.moe.moe_router_topk = 1;
  options.moe.moe_router_num_groups = options.moe.moe_router_group_topk = 1;
  EXPECT_EQ(config_error([&] { model_config_from_options(options); }),
            "num-experts (1) must be at least 2: DeepSeek-V3's router scores a group by its best "
            "two");
  ModelConfig loaded = read_model_config(qwen3_moe_json(), "config.json");
  options = Options();
  options.moe.moe_aux_loss_coeff = 1e4;
  EXPECT_EQ(config_error([&] { apply_training_options(options, loaded); }),
            "moe-aux-loss-coeff (10000) must be from 0 to 1000");
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
  // Published scripts give these to DeepSeek-V3, whose latents are normed, and whose scores are a
  // sigmoid's.
  options = Options();
  options.model.qk_layernorm = true;
  check_options_match(deepseek, options, "models/start/config.json");
  options = Options();
  options.moe.moe_router_pre_softmax = true;
  check_options_match(deepseek, options, "models/start/config.json");
  EXPECT_NE(config_error([&] { check_options_match(qwen, options, "models/start/config.json"); }),
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
