// Weights that are stored in fewer bits than they stand for.
#pragma once

#include "moetron/arch/json_fields.h"

namespace moetron {

// Refuses a quantization_config that is there and not of matrices in 8 bits with a scale for every
// block of 128 x 128, which are read as what they stand for (formats/fp8_blocks.h). `fields`: of
// config.json.
void check_quantization(const JsonFields& fields);

}  // namespace moetron
