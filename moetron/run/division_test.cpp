#include "moetron/run/division.h"

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

TEST(Division, ChecksTheModel) {
  Json json = qwen3_moe_json();
  json["num_experts"] = 128;
  const ModelConfig config = read_model_config(json, "config.json");
  EXPECT_EQ(config_error([&] { check_division(config, parallel_sizes(12, 1, 1, 12, 1)); }),
            "num-experts (128) must be a multiple of expert-model-parallel-size (12)");
  EXPECT_EQ(config_error([&] { check_division(config, parallel_sizes(4, 4, 1, 1, 1)); }), "");
  EXPECT_EQ(config_error([&] { check_division(config, parallel_sizes(8, 1, 8, 1, 1)); }), "")
      << "a stage may have no layers";
  const ModelConfig dense = read_model_config(llama_json(), "config.json");
  EXPECT_NE(config_error([&] { check_division(dense, parallel_sizes(2, 1, 1, 2, 1)); }), "");
  Json all_dense = deepseek_v3_json();
  all_dense["first_k_dense_replace"] = all_dense["num_hidden_layers"];
  const ModelConfig deepseek = read_model_config(all_dense, "config.json");
  check_division(deepseek, parallel_sizes(4, 2, 1, 1, 1));
  EXPECT_EQ(config_error([&] { check_division(deepseek, parallel_sizes(2, 1, 1, 2, 1)); }),
            "expert-model-parallel-size (2) and tensor-model-parallel-for-expert (1) must be 1 for "
            "a model without experts");
  check_division(config, parallel_sizes(16, 2, 2, 2, 2));
}

TEST(Division, FewerKeyValueHeadsThanRanksMustDivideThem) {
  Json json = llama_json();
  json["num_attention_heads"] = 12;
  json["hidden_size"] = 96;
  json["num_key_value_heads"] = 3;
  const auto error = [](const Json& from, int64_t tp) {
    const ModelConfig config = read_model_config(from, "config.json");
    return config_error([&] { check_division(config, parallel_sizes(tp, tp, 1, 1, 1)); });
  };
  EXPECT_EQ(error(json, 4),
            "num-query-groups (3) must be a multiple of tensor-model-parallel-size (4), or divide "
            "it");
  EXPECT_EQ(error(json, 6), "") << "each head is held by two ranks";
  EXPECT_EQ(error(json, 3), "");
  EXPECT_EQ(error(json, 8),
            "num-attention-heads (12) must be a multiple of tensor-model-parallel-size (8)\n"
            "num-query-groups (3) must be a multiple of tensor-model-parallel-size (8), or divide "
            "it");
  json["intermediate_size"] = 98;
  EXPECT_EQ(error(json, 3),
            "ffn-hidden-size (98) must be a multiple of tensor-model-parallel-size (3)");
  json["vocab_size"] = 513;
  json["num_key_value_heads"] = 6;
  EXPECT_EQ(error(json, 2), "") << "the vocabulary is padded";
}

TEST(Division, AWidthThatNoLayerHasNeedNotDivide) {
  Json json = qwen3_moe_json();  // experts in every layer
  json["intermediate_size"] = 98;
  const ParallelSizes sizes = parallel_sizes(4, 4, 1, 1, 1);
  EXPECT_EQ(config_error([&] { check_division(read_model_config(json, "config.json"), sizes); }),
            "");
  json["mlp_only_layers"] = {1};
  EXPECT_EQ(config_error([&] { check_division(read_model_config(json, "config.json"), sizes); }),
            "ffn-hidden-size (98) must be a multiple of tensor-model-parallel-size (4)");
}

TEST(Division, LatentWidthsMustDivideUnlessReplicated) {
  Json json = deepseek_v3_json();
  const ParallelSizes sizes = parallel_sizes(4, 4, 1, 1, 1);
  const auto error = [&](bool replicates) {
    const ModelConfig config = read_model_config(json, "config.json");
    return config_error([&] { check_division(config, sizes, replicates); });
  };
  EXPECT_EQ(error(false), "");
  json["q_lora_rank"] = 26;
  EXPECT_EQ(error(false), "q-lora-rank (26) must be a multiple of tensor-model-parallel-size (4)");
  EXPECT_EQ(error(true), "");
  json["q_lora_rank"] = nullptr;
  EXPECT_EQ(error(false), "");
  json["qk_rope_head_dim"] = 6;
  EXPECT_EQ(error(false),
            "kv-lora-rank (16) plus qk-rope-head-dim (6) must be a multiple of "
            "tensor-model-parallel-size (4) without mla-replicate-l1");
  EXPECT_EQ(error(true), "");
  json["moe_intermediate_size"] = 30;
  EXPECT_EQ(error(true),
            "num-shared-experts (1) times moe-ffn-hidden-size (30) must be a multiple of "
            "tensor-model-parallel-size (4)");
  json["n_shared_experts"] = 2;
  EXPECT_EQ(error(true), "");
}

TEST(Division, ExpertWidthsAreDividedByTheirOwnRanks) {
  const ModelConfig config = read_model_config(qwen3_moe_json(), "config.json");
  EXPECT_EQ(config_error([&] { check_division(config, parallel_sizes(3, 1, 1, 1, 3)); }),
            "moe-ffn-hidden-size (32) must be a multiple of tensor-model-parallel-for-expert (3)");
  check_division(config, parallel_sizes(8, 1, 1, 1, 8));
}

}  // namespace
}  // namespace moetron
