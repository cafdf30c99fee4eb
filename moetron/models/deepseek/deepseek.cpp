// DeepSeek-V2, V2-Lite and V3: latent attention; the first layers dense, the others with routed and
// shared experts.
#include "moetron/arch/tensors.h"
#include "moetron/models/family.h"

namespace moetron {
namespace {

constexpr double kNormalizeEps = 1e-20;  // DeepSeek's divisor of the chosen weights

}  // namespace

std::unique_ptr<TransformerLayer> make_deepseek_layer(const ModelConfig& config, int64_t index,
                                                      const ModelSettings& settings) {
  const MlaDims dims{.q_lora_rank = config.mla->q_lora_rank,
                     .kv_lora_rank = config.mla->kv_lora_rank,
                     .qk_nope_head_dim = config.mla->qk_nope_head_dim,
                     .qk_rope_head_dim = config.mla->qk_rope_head_dim,
                     .v_head_dim = config.mla->v_head_dim,
                     .replicate_down = settings.latent_attention.replicate_down,
                     .fuse_down = settings.latent_attention.fuse_down,
                     .recompute_norms = settings.latent_attention.recompute_norms};
  return assemble_layer(config, index,
                        make_latent_attention(layer_prefix(index) + tensors::kAttention,
                                              attention_settings(config, settings), dims),
                        kNormalizeEps, settings);
}

}  // namespace moetron
