#include "moetron/arch/flops.h"

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

void expect_flops(double actual, double expected) {
  EXPECT_NEAR(actual, expected, 5e-4 * expected);
}

TEST(Flops, PublishedModelsAt4096Tokens) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  const ModelConfig v3 = published_model("deepseek-ai--DeepSeek-V3");
  expect_flops(flops_per_token(v3, 4096, 1), 2.5999e11);
  expect_flops(flops_per_token(v3, 4096), 2.4981e11);
  expect_flops(flops_per_token(published_model("Qwen--Qwen3-30B-A3B"), 4096), 2.3006e10);
  expect_flops(flops_per_token(published_model("Qwen--Qwen3-235B-A22B"), 4096), 1.4803e11);
}

TEST(Flops, Moonlight) {
  Json json = deepseek_v3_json();
  json.update(parse_json(R"({"vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264,
    "moe_intermediate_size": 1408, "num_hidden_layers": 27, "num_attention_heads": 16,
    "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "n_group": 1,
    "topk_group": 1, "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64, "v_head_dim": 128, "num_nextn_predict_layers": 0})",
                         "moonlight"));
  expect_flops(flops_per_token(read_model_config(json, "moonlight"), 4096), 1.7153e10);
}

TEST(Flops, Mixtral) {
  // Its FLOPs are those of a Qwen3-MoE model of its sizes.
  Json json = qwen3_moe_json();
  json.update(parse_json(R"({"vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
    "moe_intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "num_experts": 8, "num_experts_per_tok": 2})",
                         "mixtral"));
  expect_flops(flops_per_token(read_model_config(json, "mixtral"), 4096), 7.971e10);
}

TEST(Flops, ByHandForADenseModel) {
  const ModelConfig config = read_model_config(llama_json(), "config.json");
  // Per layer: q, k, v, o 4 * 64 * 64, MLP 3 * 64 * 96, causal square 64 * 100; then the head.
  const double expected = 6.0 * (2 * (16384 + 18432 + 6400) + 64 * 512);
  EXPECT_EQ(flops_per_token(config, 100), expected);
}

}  // namespace
}  // namespace moetron
