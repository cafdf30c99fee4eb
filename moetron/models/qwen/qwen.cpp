// Qwen3-MoE, and the dense Qwen3 and Qwen2: grouped-query attention with per-head norms (Qwen3) or
// biases (Qwen2); experts where the sparse step says so.
#include "moetron/models/family.h"

namespace moetron {
namespace {

constexpr double kNormalizeEps = 0;  // Qwen divides the chosen weights by their bare sum

}  // namespace

std::unique_ptr<TransformerLayer> make_qwen_layer(const ModelConfig& config, int64_t index,
                                                  at::ScalarType dtype) {
  TransformerLayerParts parts;
  parts.attention = make_grouped_query_attention(layer_prefix(index) + "self_attn.",
                                                 attention_settings(config, dtype));
  if (config.is_moe_layer(index)) {
    parts.moe = make_experts(config, index, kNormalizeEps, dtype);
  } else {
    parts.mlp = make_dense_mlp(config, index, dtype);
  }
  return std::make_unique<TransformerLayer>(index, config.hidden_size, config.rms_norm_eps, dtype,
                                            std::move(parts));
}

}  // namespace moetron
