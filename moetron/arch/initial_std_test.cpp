#include "moetron/arch/initial_std.h"

#include <string>

#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(InitialStd, IsSmallerWhereAResultIsAddedToTheResidualStream) {
  ModelConfig config;
  config.initializer_range = 0.02;
  config.num_layers = 8;
  for (const char* added :
       {"self_attn.o_proj.weight", "mlp.down_proj.weight", "mlp.shared_experts.down_proj.weight",
        "mlp.experts.31.down_proj.weight"})
    EXPECT_DOUBLE_EQ(initial_std(config, std::string("model.layers.7.") + added), 0.005) << added;
  for (const char* other :
       {"model.embed_tokens.weight", "lm_head.weight", "model.layers.0.mlp.gate.weight",
        "model.layers.0.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.layers.0.self_attn.kv_b_proj.weight"})
    EXPECT_DOUBLE_EQ(initial_std(config, other), 0.02) << other;
}

}  // namespace
}  // namespace moetron
