#include "moetron/convert/layers_source.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/convert/memory_source_test.h"

namespace moetron {
namespace {

TEST(LayersSourceTest, HasThoseLayersAndTheEnds) {
  MemorySource source;
  for (int layer = 0; layer < 12; ++layer)
    source.add(concat("model.layers.", layer, ".w"), SafetensorsDtype::kF32, {2},
               {float(layer), float(layer + 1)});
  source.add("lm_head.weight", SafetensorsDtype::kF32, {1}, {-1});
  const LayersSource layers(source, {1, 11});
  ASSERT_EQ(layers.tensors().size(), 12u);
  for (size_t i = 1; i < layers.tensors().size(); ++i)
    EXPECT_LT(layers.tensors()[i - 1].name, layers.tensors()[i].name);
  for (int layer = 0; layer < 11; ++layer)
    EXPECT_EQ(values_of(layers, concat("model.layers.", layer, ".w")),
              (std::vector<float>{float(layer + 1), float(layer + 2)}));
  EXPECT_EQ(values_of(layers, "lm_head.weight"), std::vector<float>{-1});
}

TEST(LayersSourceTest, ConfigKeepsWhatItDoesNotKnow) {
  const Json config = {
      {"model_type", "qwen3_moe"},
      {"vocab_size", 10},
      {"hidden_size", 8},
      {"intermediate_size", 16},
      {"num_hidden_layers", 5},
      {"num_attention_heads", 2},
      {"num_key_value_heads", 2},
      {"num_experts", 4},
      {"num_experts_per_tok", 2},
      {"moe_intermediate_size", 8},
      {"mlp_only_layers", {0, 3}},
      {"quantization_config", {{"quant_method", "fp8"}, {"weight_block_size", {128, 128}}}},
      {"of_a_stranger", 7}};
  const Json made = config_of_layers(config, {2, 4}, "config.json");
  EXPECT_EQ(made.at("num_hidden_layers"), 3);
  EXPECT_EQ(made.at("mlp_only_layers"), Json::array({1}));
  EXPECT_EQ(made.at("of_a_stranger"), 7);
  EXPECT_EQ(made.at("quantization_config"), config.at("quantization_config"));
}

}  // namespace
}  // namespace moetron
