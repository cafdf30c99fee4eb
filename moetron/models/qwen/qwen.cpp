// Qwen3-MoE, and the dense Qwen3 and Qwen2: grouped-query attention with per-head norms (Qwen3) or
// biases (Qwen2); experts where the sparse step says so.
#include "moetron/arch/tensors.h"
#include "moetron/models/family.h"

namespace moetron {

std::unique_ptr<TransformerLayer> make_qwen_layer(const ModelConfig& config, int64_t index,
                                                  const ModelSettings& settings) {
  return assemble_layer(config, index,
                        make_grouped_query_attention(layer_prefix(index) + tensors::kAttention,
                                                     attention_settings(config, settings)),
                        /*normalize_eps=*/0,  // the chosen weights are divided by their bare sum
                        settings);
}

}  // namespace moetron
