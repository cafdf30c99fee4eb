// What config.json says of the weights' types.
#pragma once

#include "moetron/base/json.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// The config of the same model with weights of another type: torch_dtype, or dtype where it has
// that, of the model and of its text_config; without quantization_config.
Json with_dtype(Json config, SafetensorsDtype dtype);

// The config of the same model with the weights of its linear layers in 8 bits.
Json with_fp8(Json config);

}  // namespace moetron
