// What one layer of the real widths keeps of a token between its forward and its backward.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/arch/config_reader.h"
#include "moetron/base/json.h"
#include "moetron/measure/memory_meter.h"
#include "moetron/models/model.h"
#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

constexpr const char* kQwen235b = R"({"model_type": "qwen3_moe", "vocab_size": 64,
  "hidden_size": 4096, "num_hidden_layers": 1, "num_attention_heads": 64,
  "num_key_value_heads": 4, "head_dim": 128, "intermediate_size": 12288,
  "moe_intermediate_size": 1536, "num_experts": 16, "num_experts_per_tok": 8,
  "norm_topk_prob": true, "decoder_sparse_step": 1, "mlp_only_layers": [],
  "max_position_embeddings": 4096, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
  "hidden_act": "silu"})";

constexpr const char* kDeepseekV3 = R"({"model_type": "deepseek_v3", "vocab_size": 64,
  "hidden_size": 7168, "num_hidden_layers": 1, "num_attention_heads": 128,
  "num_key_value_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048,
  "n_routed_experts": 16, "n_shared_experts": 1, "num_experts_per_tok": 8,
  "first_k_dense_replace": 0, "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
  "scoring_func": "sigmoid", "topk_method": "noaux_tc", "routed_scaling_factor": 2.5,
  "q_lora_rank": 1536, "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
  "v_head_dim": 128, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu"})";

// GB for 4096 tokens, of one decoder layer in bf16. Bytes of a token depend neither on how many
// tokens there are nor on how many experts; weights of zero route as well as others.
double kept_gigabytes(const char* config_text, bool recomputes_norms = false) {
  const ModelConfig config = read_model_config(parse_json(config_text, "layer"), "layer");
  constexpr int64_t kTokens = 64;
  ModelSettings settings;
  settings.options = at::kBFloat16;
  settings.latent_attention.fuse_down = settings.latent_attention.recompute_norms =
      recomputes_norms;
  settings.stages = {{.first = 0, .count = 1}};
  Model model(config, settings);
  const MicroBatch micro_batch = make_micro_batch(at::zeros({1, kTokens}, at::kLong));
  ActivationMemory kept;
  ChunkRun run(model.chunks()[0], micro_batch);
  MemoryMeter meter;
  {
    // The input is what the layer before hands over, and this layer keeps.
    at::Tensor hidden = at::zeros({kTokens, config.hidden_size}, at::kBFloat16);
    forward_chunk(run, {{.data = hidden}}, {.meter = &meter});
  }
  kept = meter.measure();
  std::printf("%s: %s\n", family_name(config.family), describe(kept).c_str());
  return static_cast<double>(kept.kept_bytes()) / kTokens * 4096 / 1e9;
}

TEST(LeanActivations, AreNoMoreThanTheLeanFiguresOfBothModels) {
  const double qwen = kept_gigabytes(kQwen235b), deepseek = kept_gigabytes(kDeepseekV3);
  std::printf("GB per layer and 4096 tokens: Qwen3-235B %.3f, DeepSeek-V3 %.3f\n", qwen, deepseek);
  EXPECT_LE(qwen, 0.92);
  EXPECT_LE(deepseek, 1.86);
}

// --mla-fuse-qkv keeps neither the down projections' input, hidden_size wide, nor the normed
// latents.
TEST(LeanActivations, RecomputedNormsAreNotKept) {
  const double kept = kept_gigabytes(kDeepseekV3), fewer = kept_gigabytes(kDeepseekV3, true);
  std::printf("DeepSeek-V3: %.3f, with recomputed norms %.3f\n", kept, fewer);
  EXPECT_NEAR(kept - fewer, 2.0 * (7168 + 1536 + 512) * 4096 / 1e9, 1e-3);
}

}  // namespace
}  // namespace moetron
