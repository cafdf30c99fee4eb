#include "moetron/arch/config_writer.h"

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

// What two configs mean, whatever they were read from.
std::string meaning(ModelConfig config) {
  config.source = nullptr;
  return write_model_config(config).dump();
}

TEST(ConfigWriter, GivesPublishedFilesBackUnchanged) {
  MT_SKIP_WITHOUT_PUBLISHED_CONFIGS();
  int count = 0;
  for (const char* folder :
       {"Qwen--Qwen3-0.6B", "Qwen--Qwen3-8B", "Qwen--Qwen3-30B-A3B", "Qwen--Qwen3-235B-A22B",
        "meta-llama--Meta-Llama-3.1-8B", "meta-llama--Meta-Llama-3.1-405B",
        "deepseek-ai--DeepSeek-V2-Lite.pithtrain", "deepseek-ai--DeepSeek-R1-Distill-Qwen-32B"}) {
    const Json json = published_config(folder);
    EXPECT_EQ(write_model_config(read_model_config(json, folder)).dump(), json.dump()) << folder;
    ++count;
  }
  EXPECT_EQ(count, 8);
}

TEST(ConfigWriter, WritesAllMeaningFromTheStructAlone) {
  for (const Json& json :
       {qwen3_moe_json(), qwen2_moe_json(), moetron_json(), deepseek_v3_json(), llama_json()}) {
    ModelConfig config = read_model_config(json, "config.json");
    config.source = nullptr;
    const Json written = write_model_config(config);
    EXPECT_EQ(meaning(read_model_config(written, "config.json")), written.dump());
  }
}

TEST(ConfigWriter, KeepsUnknownKeysAndChangesOnlyWhatChanged) {
  const Json json = qwen3_moe_json();
  ModelConfig config = read_model_config(json, "config.json");
  config.num_layers = 2;
  config.dtype = "float32";
  Json expected = json;
  expected["num_hidden_layers"] = 2;
  expected["torch_dtype"] = "float32";
  expected["max_window_layers"] = 2;
  EXPECT_EQ(write_model_config(config).dump(), expected.dump());
}

TEST(ConfigWriter, ForgetsHowTheWeightsWereStored) {
  const Json json = deepseek_v3_json();
  Json stored = json;
  stored["quantization_config"] = {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  EXPECT_EQ(write_model_config(read_model_config(stored, "config.json")).dump(),
            write_model_config(read_model_config(json, "config.json")).dump());
}

TEST(ConfigWriter, ReplacesSpellingsThatOldReleasesWouldMiss) {
  Json json = qwen3_moe_json();
  for (const char* key : {"rope_theta", "torch_dtype", "num_experts"}) json.erase(key);
  json["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 1e6}, {"factor", 4.0}};
  json["dtype"] = "bfloat16";
  json["num_local_experts"] = 8;
  const ModelConfig config = read_model_config(json, "config.json");
  const Json written = write_model_config(config);
  EXPECT_FALSE(written.contains("rope_parameters") || written.contains("dtype") ||
               written.contains("num_local_experts"));
  EXPECT_EQ(written.at("rope_theta"), 1e6);
  EXPECT_EQ(written.at("rope_scaling").at("factor"), 4.0);
  EXPECT_EQ(written.at("num_experts"), 8);
  EXPECT_EQ(written.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(written.at("my_note").dump(), R"({"kept":[1,2]})");
  EXPECT_EQ(meaning(read_model_config(written, "config.json")), meaning(config));
}

}  // namespace
}  // namespace moetron
