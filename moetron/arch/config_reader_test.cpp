#include "moetron/arch/config_reader.h"

#include <cmath>
#include <gmock/gmock.h>

#include "moetron/arch/arch_test_data.h"
#include "moetron/arch/config_writer.h"
#include "moetron/arch/inventory.h"
#include "moetron/arch/rope.h"

namespace moetron {
namespace {

using Family = ModelConfig::Family;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(ConfigReader, ReadsDeepseekV2Lite) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  const auto config =
      read_model_config(published_configs() / "deepseek-ai--DeepSeek-V2-Lite.pithtrain");
  EXPECT_EQ(config.family, Family::kDeepseekV2);
  EXPECT_EQ(config.vocab_size, 102400);
  EXPECT_EQ(config.num_layers, 27);
  EXPECT_EQ(config.head_dim, 192);
  EXPECT_EQ(config.value_head_dim(), 128);
  ASSERT_TRUE(config.mla && config.moe);
  EXPECT_EQ(config.mla->q_lora_rank, 0);  // null in the file
  EXPECT_EQ(config.mla->kv_lora_rank, 512);
  EXPECT_EQ(config.moe->num_experts, 64);
  EXPECT_EQ(config.moe->top_k, 6);
  EXPECT_EQ(config.moe->shared_intermediate_size, 2816);
  EXPECT_EQ(config.moe->score_function, ScoreFunction::kSoftmax);
  EXPECT_EQ(config.moe->num_groups, 1);
  EXPECT_EQ(config.moe->aux_loss, AuxLossKind::kSequence);
  EXPECT_TRUE(config.moe->router_fp32);
  EXPECT_FALSE(config.moe->norm_topk_prob || config.moe->expert_bias);
  EXPECT_FALSE(config.is_moe_layer(0));
  EXPECT_TRUE(config.is_moe_layer(1));
  EXPECT_EQ(config.num_moe_layers(), 26);
  EXPECT_TRUE(config.rope.interleaved);
  EXPECT_EQ(config.rope.dim, 64);
}

TEST(ConfigReader, ReadsQwen3MoeInEightBits) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  EXPECT_EQ(
      read_model_config(published_config("Qwen--Qwen3-30B-A3B-FP8"), "config.json").moe->top_k, 8);
}

TEST(ConfigReader, ReadsDeepseekV3AsItIsReleased) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  Json json = published_config("deepseek-ai--DeepSeek-V3");
  const ModelConfig config = read_model_config(json, "config.json");
  EXPECT_EQ(config.num_mtp_layers, 1);
  EXPECT_EQ(config.num_moe_layers(), 58);
  EXPECT_EQ(config.mla->q_lora_rank, 1536);
  EXPECT_EQ(config.moe->num_groups, 8);
  EXPECT_EQ(config.moe->group_topk, 4);
  EXPECT_EQ(config.moe->group_score, GroupScore::kTopTwoSum);
  EXPECT_EQ(config.moe->score_function, ScoreFunction::kSigmoid);
  EXPECT_EQ(config.moe->routed_scaling_factor, 2.5);
  EXPECT_EQ(config.moe->bias_update_rate, 0.001);
  EXPECT_TRUE(config.moe->expert_bias && config.moe->norm_topk_prob);
}

TEST(ConfigReader, ReadsTheDenseFamilies) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  const auto qwen3 = read_model_config(published_configs() / "Qwen--Qwen3-0.6B");
  EXPECT_EQ(qwen3.head_dim, 128);  // more than hidden_size / num_attention_heads
  EXPECT_TRUE(qwen3.qk_norm && qwen3.tie_word_embeddings && !qwen3.attention_bias && !qwen3.moe);
  const auto qwen2 =
      read_model_config(published_configs() / "deepseek-ai--DeepSeek-R1-Distill-Qwen-32B");
  EXPECT_EQ(qwen2.head_dim, 128);
  EXPECT_TRUE(qwen2.attention_bias && !qwen2.qk_norm);
  const auto llama = read_model_config(published_configs() / "meta-llama--Meta-Llama-3.1-8B");
  EXPECT_EQ(llama.rope.type, RopeType::kLlama3);
  EXPECT_EQ(llama.rope.original_max_position_embeddings, 8192);
  EXPECT_EQ(llama.rms_norm_eps, 1e-5);
}

TEST(ConfigReader, AcceptsTheSpellingsOfTransformers5) {
  Json old_json = qwen3_moe_json();
  Json new_json = old_json;
  for (const char* key : {"rope_theta", "torch_dtype", "num_experts"}) new_json.erase(key);
  new_json["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 1e6}};
  new_json["dtype"] = "bfloat16";
  new_json["num_local_experts"] = 8;
  new_json["layer_types"] = {"full_attention", "full_attention"};
  const ModelConfig config = read_model_config(new_json, "config.json");
  EXPECT_EQ(config.rope.theta, 1e6);
  EXPECT_EQ(config.moe->num_experts, 8);
  EXPECT_EQ(config.dtype, "bfloat16");

  Json yarn = deepseek_v3_json();
  Json scaling = yarn["rope_scaling"];
  yarn.erase("rope_scaling");
  scaling["rope_type"] = scaling["type"];
  scaling.erase("type");
  scaling["rope_theta"] = 20000;
  yarn["rope_parameters"] = scaling;
  const ModelConfig deepseek = read_model_config(yarn, "config.json");
  EXPECT_EQ(deepseek.rope.type, RopeType::kYarn);
  EXPECT_EQ(deepseek.rope.theta, 20000);
  EXPECT_EQ(deepseek.rope.factor, 40);
}

TEST(ConfigReader, NullsAndMissingKeysTakeTheClassDefaults) {
  Json json = llama_json();
  json["num_key_value_heads"] = nullptr;
  json["rope_scaling"] = nullptr;
  json.erase("rope_theta");
  json.erase("torch_dtype");
  const ModelConfig llama = read_model_config(json, "config.json");
  EXPECT_EQ(llama.num_key_value_heads, 4);
  EXPECT_EQ(llama.rope.theta, 10000.0);
  EXPECT_EQ(llama.max_position_embeddings, 2048);
  EXPECT_EQ(llama.dtype, "float32");

  Json v2 = deepseek_v3_json();
  v2["model_type"] = "deepseek_v2";
  v2.erase("q_lora_rank");
  v2.erase("n_shared_experts");
  v2["topk_method"] = "gready";
  const ModelConfig config = read_model_config(v2, "config.json");
  EXPECT_EQ(config.mla->q_lora_rank, 1536);  // absent is not null
  EXPECT_EQ(config.moe->num_shared_experts, 2);
  EXPECT_EQ(config.moe->num_groups, 1);  // greedy knows no groups
  v2["n_shared_experts"] = nullptr;
  EXPECT_THAT(reading_error(v2), HasSubstr("n_shared_experts (null) must be an integer"));
  v2["n_shared_experts"] = 0;
  v2["topk_method"] = "group_limited_greedy";
  const ModelConfig grouped = read_model_config(v2, "config.json");
  EXPECT_EQ(grouped.moe->shared_intermediate_size, 0);
  EXPECT_EQ(grouped.moe->num_groups, 4);
  EXPECT_EQ(grouped.moe->group_score, GroupScore::kMax);
}

TEST(ConfigReader, QwenChoosesMoeLayersByStepAndList) {
  Json json = qwen3_moe_json();
  json["num_hidden_layers"] = 6;
  json["decoder_sparse_step"] = 2;
  json["mlp_only_layers"] = {3};
  const ModelConfig config = read_model_config(json, "config.json");
  const std::vector<bool> expected{false, true, false, false, false, true};
  for (int64_t layer = 0; layer < 6; ++layer)
    EXPECT_EQ(config.is_moe_layer(layer), expected[static_cast<size_t>(layer)]) << layer;
}

struct Refusal {
  Json (*base)();
  const char* key;
  const char* value;  // JSON; "absent" removes the key
  const char* message;
};

class RefusedConfig : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedConfig, NamesKeyAndValues) {
  const Refusal& refusal = GetParam();
  Json json = refusal.base();
  ASSERT_EQ(reading_error(json), "");
  if (std::string(refusal.value) == "absent") {
    json.erase(refusal.key);
  } else {
    json[refusal.key] = parse_json(refusal.value, "value");
  }
  EXPECT_EQ(reading_error(json), std::string("dir/config.json: ") + refusal.message);
}

INSTANTIATE_TEST_SUITE_P(
    All, RefusedConfig,
    ::testing::Values(
        Refusal{llama_json, "model_type", "absent", "the key model_type is missing"},
        Refusal{llama_json, "model_type", "\"mixtral\"",
                "model_type (\"mixtral\") is not supported; these are: deepseek_v2, deepseek_v3, "
                "qwen3_moe, qwen2_moe, qwen3, qwen2, llama, mistral, moetron"},
        Refusal{llama_json, "vocab_size", "absent", "the key vocab_size is missing"},
        Refusal{llama_json, "vocab_size", "null", "vocab_size (null) must be an integer"},
        Refusal{llama_json, "hidden_size", "\"64\"", "hidden_size (\"64\") must be an integer"},
        Refusal{llama_json, "hidden_size", "64.5", "hidden_size (64.5) must be an integer"},
        Refusal{llama_json, "num_hidden_layers", "1000000000",
                "num_hidden_layers (1000000000) must be from 1 to 1024"},
        Refusal{llama_json, "num_hidden_layers", "18446744073709551615",
                "num_hidden_layers (18446744073709551615) must be from 1 to 1024"},
        Refusal{llama_json, "num_attention_heads", "0",
                "num_attention_heads (0) must be from 1 to 4096"},
        Refusal{llama_json, "num_attention_heads", "5",
                "num_attention_heads (5) must divide hidden_size (64) since head_dim is not given"},
        Refusal{llama_json, "num_key_value_heads", "3",
                "num_attention_heads (4) must be a multiple of num_key_value_heads (3)"},
        Refusal{llama_json, "head_dim", "15", "head_dim (15) must be even for rotary embeddings"},
        Refusal{llama_json, "hidden_act", "\"gelu\"",
                "hidden_act (\"gelu\") is not supported: it must be \"silu\""},
        Refusal{llama_json, "attention_bias", "true",
                "attention_bias (true) is not supported: it must be false"},
        Refusal{llama_json, "attention_bias", "1", "attention_bias (1) must be true or false"},
        Refusal{llama_json, "rope_theta", "-1", "rope_theta (-1) must be from 1 to 1e+12"},
        Refusal{llama_json, "rope_scaling", "3", "rope_scaling (3) must be a JSON object"},
        Refusal{llama_json, "rope_scaling", R"({"type": "dynamic", "factor": 2})",
                "rope_scaling: type (\"dynamic\") is not supported; default, linear, yarn and "
                "llama3 are"},
        Refusal{llama_json, "rope_scaling", R"({"type": "linear"})",
                "rope_scaling: the key factor is missing"},
        Refusal{llama_json, "rope_scaling", R"({"type": "linear", "rope_type": "yarn"})",
                "rope_scaling: type (\"linear\") contradicts rope_type (\"yarn\")"},
        Refusal{llama_json, "rope_parameters", R"({"rope_theta": 10})",
                "rope_parameters: rope_theta (10) contradicts rope_theta (500000) outside of it"},
        Refusal{llama_json, "architectures", R"(["LlamaForSequenceClassification"])",
                "architectures ([\"LlamaForSequenceClassification\"]) is not supported: a "
                "...ForCausalLM class is expected"},
        Refusal{llama_json, "torch_dtype", "\"int8\"",
                "torch_dtype (\"int8\") is not supported; bfloat16, float16 and float32 are"},
        Refusal{llama_json, "quantization_config", R"({"quant_method": "fp8"})",
                "quantization_config ({\"quant_method\":\"fp8\"}) is not supported: fp8 with a "
                "weight_block_size of [128, 128] is"},
        Refusal{qwen3_moe_json, "use_sliding_window", "true",
                "use_sliding_window (true) is not supported: it must be false"},
        Refusal{qwen3_moe_json, "num_key_value_heads", "absent",
                "the key num_key_value_heads is missing"},
        Refusal{qwen3_moe_json, "num_experts", "absent", "the key num_experts is missing"},
        Refusal{qwen3_moe_json, "model_type", "\"moetron\"", "the key qkv_bias is missing"},
        Refusal{moetron_json, "use_qk_norm", "absent", "the key use_qk_norm is missing"},
        Refusal{moetron_json, "use_qk_norm", "null", "use_qk_norm (null) must be true or false"},
        Refusal{moetron_json, "attention_bias", "true",
                "attention_bias (true) is not supported: it must be false"},
        Refusal{moetron_json, "num_experts", "1",
                "num_experts_per_tok (2) must be at most num_experts (1)"},
        Refusal{qwen3_moe_json, "num_experts", "1",
                "num_experts_per_tok (2) must be at most num_experts (1)"},
        Refusal{qwen3_moe_json, "mlp_only_layers", "[-1]",
                "mlp_only_layers ([-1]) must be from 0 to 1024"},
        Refusal{deepseek_v3_json, "n_group", "3",
                "n_routed_experts (8) must be a multiple of n_group (3)"},
        Refusal{deepseek_v3_json, "topk_group", "5", "topk_group (5) must be at most n_group (4)"},
        Refusal{deepseek_v3_json, "num_experts_per_tok", "9",
                "num_experts_per_tok (9) must be at most n_routed_experts (8)"},
        Refusal{deepseek_v3_json, "num_experts_per_tok", "5",
                "num_experts_per_tok (5) must be at most the 4 experts of the groups that "
                "topk_group (2) of n_group (4) keeps"},
        Refusal{deepseek_v3_json, "num_key_value_heads", "2",
                "num_key_value_heads (2) must equal num_attention_heads (4) under multi-head "
                "latent attention"},
        Refusal{deepseek_v3_json, "topk_method", "\"greedy\"",
                "topk_method (\"greedy\") must be \"noaux_tc\" in deepseek_v3"},
        Refusal{deepseek_v3_json, "n_routed_experts", "null",
                "n_routed_experts (null) must be an integer"},
        Refusal{deepseek_v3_json, "num_local_experts", "4",
                "num_local_experts (4) contradicts n_routed_experts (8)"},
        Refusal{
            llama_json, "rope_scaling", "{\"full_attention\": {\"rope_theta\": 5}}",
            "rope_scaling: full_attention ({\"rope_theta\":5}) is not supported: rotary parameters "
            "must be the same in every layer"}));

TEST(ConfigReader, TellsAllContradictionsTogether) {
  Json json = deepseek_v3_json();
  json["n_group"] = 3;
  json["num_key_value_heads"] = 2;
  json["qk_rope_head_dim"] = 7;
  EXPECT_THAT(reading_error(json),
              AllOf(HasSubstr("dir/config.json: num_key_value_heads (2) must equal"),
                    HasSubstr("; qk_rope_head_dim (7) must be even"),
                    HasSubstr("; n_routed_experts (8) must be a multiple of n_group (3)")));
}

TEST(ConfigReader, Qwen2MoeHasAGatedSharedExpert) {
  const ModelConfig config = read_model_config(qwen2_moe_json(), "config.json");
  EXPECT_TRUE(config.attention_bias && !config.qk_norm && config.moe->shared_expert_gate);
  EXPECT_EQ(config.moe->num_shared_experts, 2);
  EXPECT_EQ(config.moe->shared_intermediate_size, 64);
  Json json = qwen2_moe_json();
  json["shared_expert_intermediate_size"] = 63;
  EXPECT_THAT(reading_error(json), HasSubstr("must be a multiple of moe_intermediate_size (32)"));
  json.erase("shared_expert_intermediate_size");
  EXPECT_THAT(reading_error(json), HasSubstr("shared_expert_intermediate_size is missing"));
  json = qwen2_moe_json();
  json["qkv_bias"] = false;
  EXPECT_THAT(reading_error(json), HasSubstr("must be true in qwen2_moe"));
}

TEST(ConfigReader, NeverAllocatesForAbsurdProducts) {
  Json json = qwen3_moe_json();
  json["num_experts"] = 65536;
  json["num_hidden_layers"] = 1024;
  EXPECT_THAT(reading_error(json), HasSubstr("num_hidden_layers (1024) times num_experts (65536)"));
}

// Any value in any place is read or refused in one line, never a crash or another kind of error.
TEST(ConfigReader, SurvivesAnyValueOfAnyKey) {
  Json linear = llama_json();
  linear["rope_parameters"] = {
      {"rope_type", "llama3"}, {"factor", 8}, {"low_freq_factor", 1}, {"high_freq_factor", 4}};
  const Json values = parse_json(
      R"([null, true, "", "x", -1, 0, 1, 3, 1e308, -0.5, 9223372036854775807, 18446744073709551615,
          [], [1], [null], {}, {"type": "yarn"}, {"a": {"b": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}])",
      "values");
  int num_refused = 0;
  int num_read = 0;
  const auto attempt = [&](const Json& json) {
    const std::string error = reading_error(json);
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
    EXPECT_LT(error.size(), 250u) << error;
    (error.empty() ? num_read : num_refused) += 1;
    if (!error.empty()) return;
    const ModelConfig config = read_model_config(json, "config.json");
    EXPECT_GT(count_stored_bytes(tensor_inventory(config), config), 0);  // no overflow
    for (const float frequency : inverse_frequencies(config.rope))
      EXPECT_TRUE(std::isfinite(frequency)) << json.dump();
    EXPECT_EQ(read_model_config(write_model_config(config), "config.json").num_layers,
              config.num_layers);
  };
  for (const Json& base : {qwen3_moe_json(), qwen2_moe_json(), deepseek_v3_json(), linear}) {
    for (const auto& [key, unused] : base.items()) {
      for (const Json& value : values) {
        Json json = base;
        json[key] = value;
        attempt(json);
      }
    }
    for (const char* outer : {"rope_scaling", "rope_parameters"}) {
      if (!base.contains(outer)) continue;
      for (const auto& [key, unused] : base.at(outer).items()) {
        for (const Json& value : values) {
          Json json = base;
          json[outer][key] = value;
          attempt(json);
        }
      }
    }
  }
  EXPECT_GT(num_refused, 600);
  EXPECT_GT(num_read, 100);
}

TEST(ConfigReader, NamesTheFileOfAFolder) {
  EXPECT_THROW(read_model_config(std::filesystem::path("/nonexistent")), InputError);
  EXPECT_THAT(reading_error(Json::array()),
              HasSubstr("dir/config.json: a JSON object is expected"));
}

// Its class attends in a window of 4096 unless the key says null.
TEST(ConfigReader, MistralNeedsANullWindow) {
  Json json = llama_json();
  json["model_type"] = "mistral";
  json["num_key_value_heads"] = 2;
  json["sliding_window"] = nullptr;
  EXPECT_EQ(read_model_config(json, "config.json").family, ModelConfig::Family::kMistral);
  const auto error_of = [&] {
    try {
      read_model_config(json, "config.json");
      return std::string();
    } catch (const InputError& error) {
      return std::string(error.what());
    }
  };
  json["sliding_window"] = 4096;
  EXPECT_THAT(error_of(),
              testing::HasSubstr("sliding_window (4096) is not supported: it must be null"));
  json.erase("sliding_window");
  EXPECT_THAT(error_of(), testing::HasSubstr("the key sliding_window is missing"));
}

}  // namespace
}  // namespace moetron
