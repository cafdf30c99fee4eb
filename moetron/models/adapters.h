// Low-rank updates of a layer's weights, made from the pieces that a rank holds of them.
#pragma once

#include "moetron/models/transformer_layer.h"

namespace moetron {

// Gives every weight that settings.lora targets its updates (arch/lora.h), trained parameters whose
// values are zero until they are initialised or loaded. `parts` are those of a decoder layer.
void add_adapters(TransformerLayerParts& parts, const ModelConfig& config,
                  const ModelSettings& settings);

}  // namespace moetron
