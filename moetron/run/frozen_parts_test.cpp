#include "moetron/run/frozen_parts.h"

#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/error.h"
#include "moetron/base/json.h"

namespace moetron {
namespace {

ModelConfig tiny_model() {
  return read_model_config(
      parse_json(R"({"model_type": "qwen3_moe", "vocab_size": 61, "hidden_size": 32,
  "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 8,
  "intermediate_size": 48, "moe_intermediate_size": 16, "num_experts": 8,
  "num_experts_per_tok": 2, "decoder_sparse_step": 1, "mlp_only_layers": [],
  "max_position_embeddings": 128, "rope_theta": 10000.0, "hidden_act": "silu",
  "tie_word_embeddings": true})",
                 "tiny"),
      "tiny");
}

std::string refusal(const std::vector<std::string>& given) {
  try {
    find_frozen_parts(tiny_model(), given, /*fuses_down=*/false);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

TEST(FrozenParts, HaveNamesAndPatterns) {
  const FrozenParts frozen =
      find_frozen_parts(tiny_model(), {"router", "model.layers.1.self_attn.*"}, false);
  EXPECT_TRUE(frozen.contains("model.layers.0.mlp.gate.weight"));
  EXPECT_FALSE(frozen.contains("model.layers.0.mlp.experts.0.gate_proj.weight"));
  EXPECT_TRUE(frozen.contains("model.layers.1.self_attn.q_proj.weight"));
  EXPECT_FALSE(frozen.contains("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_TRUE(find_frozen_parts(tiny_model(), {}, false).empty());
}

TEST(FrozenParts, AreRefusedByNameWithWhatThereIs) {
  const std::string parts =
      "; its parts are embedding, router, experts, attention, norms, and a tensor is called "
      "model.embed_tokens.weight";
  EXPECT_EQ(refusal({"routers"}),
            "freeze (routers) is no part of the model and matches none of its tensors" + parts);
  EXPECT_EQ(refusal({"head"}),
            "freeze (head) is no part of the model and matches none of its tensors" + parts +
                " (the head is the embedding's table)");
  EXPECT_EQ(
      refusal({"*.q_proj.weight"}),
      "freeze covers model.layers.0.self_attn.q_proj.weight but not "
      "model.layers.0.self_attn.k_proj.weight, which lies in one weight with it: freeze both");
  EXPECT_EQ(refusal({"*.experts.3.*"}),
            "freeze covers model.layers.0.mlp.experts.3.gate_proj.weight but not "
            "model.layers.0.mlp.experts.2.up_proj.weight, which lies in one weight with it: freeze "
            "both");
  EXPECT_EQ(refusal({"*"}), "freeze leaves nothing to train");
  EXPECT_EQ(refusal({"*.q_proj.*", "*.k_proj.*", "*.v_proj.*"}), "");
}

}  // namespace
}  // namespace moetron
