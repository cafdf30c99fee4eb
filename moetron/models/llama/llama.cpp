// Llama 2 and 3: grouped-query attention and a dense feed-forward.
#include "moetron/models/family.h"

namespace moetron {

std::unique_ptr<TransformerLayer> make_llama_layer(const ModelConfig& config, int64_t index,
                                                   at::ScalarType dtype) {
  TransformerLayerParts parts;
  parts.attention = make_grouped_query_attention(layer_prefix(index) + "self_attn.",
                                                 attention_settings(config, dtype));
  parts.mlp = make_dense_mlp(config, index, dtype);
  return std::make_unique<TransformerLayer>(index, config.hidden_size, config.rms_norm_eps, dtype,
                                            std::move(parts));
}

}  // namespace moetron
