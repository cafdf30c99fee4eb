// Writing a model's config.json, in the spelling that every transformers release of the family
// reads: rope_theta with rope_scaling, torch_dtype, num_experts.
#pragma once

#include "moetron/arch/model_config.h"

namespace moetron {

// Made from options: every key that the family has; bos_token_id and eos_token_id are null, for the
// shape does not know the tokenizer. Read from a file: that file's keys, in its order, with only
// those changed whose meaning has changed since, transformers-5-only spellings replaced, and
// without a quantization_config.
Json write_model_config(const ModelConfig& config);

}  // namespace moetron
