#include "moetron/arch/inventory.h"

#include <map>
#include <set>

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

// Qwen2 and the first Qwen3 sizes by their published numbers.
Json qwen2_json(int64_t hidden, int64_t heads, int64_t kv, int64_t intermediate, int64_t vocab) {
  Json json = llama_json();
  json["model_type"] = "qwen2";
  json["num_hidden_layers"] = 28;
  json["hidden_size"] = hidden;
  json["num_attention_heads"] = heads;
  json["num_key_value_heads"] = kv;
  json["intermediate_size"] = intermediate;
  json["vocab_size"] = vocab;
  return json;
}

void expect_totals(const ModelConfig& config, int64_t tensors, int64_t bytes, int64_t parameters) {
  const auto inventory = tensor_inventory(config);
  EXPECT_EQ(static_cast<int64_t>(inventory.size()), tensors);
  EXPECT_EQ(count_stored_bytes(inventory, config), bytes);
  EXPECT_EQ(count_parameters(inventory), parameters);
}

TEST(Inventory, TotalsOfPublishedModels) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  expect_totals(published_model("deepseek-ai--DeepSeek-V2-Lite.pithtrain"), 5291, 31412968448,
                15706484224);
  expect_totals(published_model("Qwen--Qwen3-30B-A3B"), 18867, 61064245248, 30532122624);
  expect_totals(published_model("Qwen--Qwen3-235B-A22B"), 36945, 470187269120, 235093634560);
  expect_totals(published_model("Qwen--Qwen3-8B"), 399, 16381470720, 8190735360);
  expect_totals(published_model("meta-llama--Meta-Llama-3.1-8B"), 291, 16060522496, 8030261248);
  // Its file also holds the tied lm_head: 151936 x 1024 in bfloat16.
  expect_totals(published_model("Qwen--Qwen3-0.6B"), 310, 1503264768 - 2 * 151936 * 1024,
                596049920);
}

TEST(Inventory, TotalsOfQwen2) {
  Json small = qwen2_json(1536, 12, 2, 8960, 151936);
  small["tie_word_embeddings"] = true;
  expect_totals(read_model_config(small, "small"), 338, 3087428608, 1543714304);
  expect_totals(read_model_config(qwen2_json(3584, 28, 4, 18944, 152064), "large"), 339,
                15231233024, 7615616512);
}

TEST(Inventory, DeepseekV3WithItsPredictionLayer) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  const ModelConfig config = published_model("deepseek-ai--DeepSeek-V3");
  const auto with_mtp = tensor_inventory(config, MtpTensors::kInclude);
  EXPECT_EQ(count_parameters(with_mtp), 684489845504);
  int64_t mtp = 0;
  int64_t quantized = 0;  // what the FP8 release stores with a tensor of scales beside it
  for (const TensorInfo& tensor : with_mtp) {
    EXPECT_EQ(tensor.is_mtp, tensor.layer == 61) << tensor.name;
    const bool is_copy = tensor.name.ends_with("embed_tokens.weight") ||
                         tensor.name.ends_with("shared_head.head.weight");
    if (tensor.is_mtp && !is_copy) mtp += tensor.num_elements();
    const bool plain = tensor.shape.size() != 2 || tensor.layer < 0 || is_copy ||
                       tensor.name.ends_with("mlp.gate.weight") ||
                       tensor.name.ends_with("eh_proj.weight");
    quantized += plain ? 0 : 1;
  }
  EXPECT_NEAR(static_cast<double>(mtp), 11.61e9, 0.005e9);
  EXPECT_EQ(static_cast<int64_t>(with_mtp.size()) + quantized, 91991);
  EXPECT_NEAR(static_cast<double>(count_parameters(tensor_inventory(config))), 671.0e9, 0.05e9);
}

TEST(Inventory, MarksExpertsAndBuffers) {
  const auto config = read_model_config(deepseek_v3_json(), "config.json");
  std::map<std::string, TensorInfo> by_name;
  for (const TensorInfo& tensor : tensor_inventory(config)) by_name[tensor.name] = tensor;
  EXPECT_EQ(by_name.size(), tensor_inventory(config).size());
  const TensorInfo& bias = by_name.at("model.layers.1.mlp.gate.e_score_correction_bias");
  EXPECT_TRUE(bias.is_buffer && bias.dtype == StoredDtype::kFloat32 && !bias.is_expert());
  const TensorInfo& down = by_name.at("model.layers.2.mlp.experts.7.down_proj.weight");
  EXPECT_EQ(down.layer, 2);
  EXPECT_EQ(down.expert, 7);
  EXPECT_EQ(down.shape, (std::vector<int64_t>{64, 32}));
  EXPECT_EQ(by_name.at("model.layers.0.self_attn.kv_b_proj.weight").shape,
            (std::vector<int64_t>{4 * (16 + 12), 16}));
  EXPECT_EQ(by_name.at("model.embed_tokens.weight").layer, -1);
  EXPECT_FALSE(by_name.contains("model.layers.3.eh_proj.weight"));
}

std::set<std::string> weight_map_names(const std::string& folder) {
  const Json index = read_json(published_configs() / folder / "model.safetensors.index.json");
  std::set<std::string> names;
  for (const auto& [name, file] : index.at("weight_map").items()) names.insert(name);
  return names;
}

TEST(Inventory, NamesEqualPublishedIndexes) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  std::set<std::string> ours;
  for (const auto& tensor :
       tensor_inventory(published_model("deepseek-ai--DeepSeek-R1-Distill-Qwen-32B")))
    ours.insert(tensor.name);
  EXPECT_EQ(ours, weight_map_names("deepseek-ai--DeepSeek-R1-Distill-Qwen-32B"));

  // A multi-modal model around Qwen3-8B: the language model's names must be ours.
  std::set<std::string> language;
  for (const std::string& name : weight_map_names("alibaba--Logics-Thinking-8B"))
    if (name.starts_with("model.layers.") || name.starts_with("lm_head") ||
        name.starts_with("model.norm") || name.starts_with("model.embed_tokens"))
      language.insert(name);
  ours.clear();
  for (const auto& tensor : tensor_inventory(published_model("Qwen--Qwen3-8B")))
    ours.insert(tensor.name);
  EXPECT_EQ(ours, language);

  // A quantized Llama-3.1-8B splits the weights of its projections into other tensors.
  ours.clear();
  for (const auto& tensor : tensor_inventory(published_model("meta-llama--Meta-Llama-3.1-8B")))
    ours.insert(tensor.name.substr(0, tensor.name.rfind('.')));
  std::set<std::string> modules;
  for (const std::string& name : weight_map_names("jeevanchaps--Llama3.1-8B-Instruct-quant")) {
    const size_t weight = name.find(".weight");
    modules.insert(name.substr(0, weight == std::string::npos ? name.rfind('.') : weight));
  }
  EXPECT_EQ(ours, modules);
}

TEST(Inventory, RanksHoldWhatTheRulesSay) {
  ModelConfig config = read_model_config(qwen3_moe_json(), "config.json");  // 2 key-value heads
  config.vocab_size = 511;
  std::map<std::string, TensorInfo> by_name;
  for (const TensorInfo& tensor : tensor_inventory(config)) by_name[tensor.name] = tensor;
  const ParallelSizes sizes = parallel_sizes(8, 4, 1, 4, 2);
  const auto held = [&](const std::string& name) {
    return elements_on_rank(by_name.at(name), sizes, division_settings(config, false));
  };
  EXPECT_EQ(held("model.embed_tokens.weight"), 128 * 64) << "padded";
  EXPECT_EQ(held("model.norm.weight"), 64);
  EXPECT_EQ(held("model.layers.0.self_attn.q_proj.weight"), 4 * 32 * 64 / 4);
  EXPECT_EQ(held("model.layers.0.self_attn.k_proj.weight"), 32 * 64) << "one head, on two ranks";
  EXPECT_EQ(held("model.layers.0.self_attn.o_proj.weight"), 64 * 4 * 32 / 4);
  EXPECT_EQ(held("model.layers.0.mlp.gate.weight"), 8 * 64);
  EXPECT_EQ(held("model.layers.0.mlp.experts.7.down_proj.weight"), 64 * 32 / 2);
  const TensorShard key = tensor_shard(tensors::kKey.shard, 3, 4, {.num_key_value_heads = 2});
  EXPECT_EQ(key.index, 1);
  EXPECT_EQ(key.count, 2);
  EXPECT_EQ(key.copies, 2);
  EXPECT_EQ(tensor_shard(tensors::kKeyValueDown.shard, 3, 4).count, 4);
  EXPECT_EQ(tensor_shard(tensors::kKeyValueDown.shard, 3, 4, {.mla_replicate_l1 = true}).count, 1);
  EXPECT_EQ(tensor_shard(tensors::kDown.shard, 3, 4).dim, 1);
  EXPECT_THROW(tensor_shard(tensors::kKey.shard, 0, 4, {.num_key_value_heads = 3}), InternalError);
}

}  // namespace
}  // namespace moetron
