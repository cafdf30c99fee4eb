// Llama 2 and 3: grouped-query attention and a dense feed-forward.
#include "moetron/arch/tensors.h"
#include "moetron/models/family.h"

namespace moetron {

std::unique_ptr<TransformerLayer> make_llama_layer(const ModelConfig& config, int64_t index,
                                                   const ModelSettings& settings) {
  return assemble_layer(config, index,
                        make_grouped_query_attention(layer_prefix(index) + tensors::kAttention,
                                                     attention_settings(config, settings)),
                        /*normalize_eps=*/0, settings);
}

}  // namespace moetron
