#include "moetron/arch/layer_range.h"

#include <functional>
#include <string>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "no error";
}

TEST(LayerRangeTest, ReadsTwoNumbers) {
  EXPECT_EQ(parse_layer_range("0-6"), (LayerRange{0, 6}));
  EXPECT_EQ(parse_layer_range("3-3").count(), 1);
  for (const char* text : {"", "6", "-", "0-", "-6", "6-0", "0--6", "0-6 ", " 0-6", "0-6x", "a-b",
                           "0-99999999999999999999"})
    EXPECT_EQ(message_of([&] { parse_layer_range(text); }),
              std::string("load-layers (") + text +
                  ") must be the numbers of a first and a last layer, as 0-6 for the first seven");
}

TEST(LayerRangeTest, RenamesWhatIsInThem) {
  const LayerRange range{2, 3};
  EXPECT_EQ(name_in_range("model.layers.2.mlp.experts.2.up_proj.weight", range),
            "model.layers.0.mlp.experts.2.up_proj.weight");
  EXPECT_EQ(name_in_range("model.layers.3.a", range), "model.layers.1.a");
  EXPECT_EQ(name_in_range("model.layers.1.a", range), std::nullopt);
  EXPECT_EQ(name_in_range("model.layers.30.a", range), std::nullopt);
  EXPECT_EQ(name_in_range("model.norm.weight", range), "model.norm.weight");
}

ModelConfig model() {
  ModelConfig config;
  config.num_layers = 6;
  config.num_mtp_layers = 1;
  config.moe.emplace();
  return config;
}

TEST(LayerRangeTest, KeepsWhichLayersHaveExperts) {
  ModelConfig config = model();
  config.moe->first_k_dense_replace = 3;
  EXPECT_EQ(take_layers(config, {0, 1}, "x").moe->first_k_dense_replace, 2);
  EXPECT_EQ(take_layers(config, {2, 5}, "x").moe->first_k_dense_replace, 1);
  EXPECT_EQ(take_layers(config, {4, 5}, "x").moe->first_k_dense_replace, 0);
  config = model();
  config.moe->mlp_only_layers = {0, 2, 4};
  config.moe->decoder_sparse_step = 2;
  const ModelConfig taken = take_layers(config, {2, 4}, "x");
  EXPECT_EQ(taken.num_layers, 3);
  EXPECT_EQ(taken.num_mtp_layers, 0);
  for (int64_t layer = 0; layer < 3; ++layer)
    EXPECT_EQ(taken.is_moe_layer(layer), config.is_moe_layer(layer + 2)) << layer;
}

TEST(LayerRangeTest, RefusesWhatTheModelHasNot) {
  ModelConfig config = model();
  EXPECT_EQ(message_of([&] {
              take_layers(config, {0, 6}, "m/config.json");
            }),
            "load-layers (0-6) must be within layers 0-5, which m/config.json tells of");
  config.moe->decoder_sparse_step = 2;
  EXPECT_EQ(message_of([&] {
              take_layers(config, {1, 2}, "m/config.json");
            }),
            "load-layers (1-2) must begin at a multiple of decoder_sparse_step (2) of "
            "m/config.json: under other numbers, layers with and without experts would change "
            "places");
}

}  // namespace
}  // namespace moetron
