// Model FLOPs as current Megatron counts them, so that TFLOP/s compare: forward plus twice that for
// backward, half of the attention square (causal), the vocabulary as given, MTP logits; not the
// router, permutation, recomputation, optimizer or embedding look-up.
#pragma once

#include <cstdint>

#include "moetron/arch/model_config.h"

namespace moetron {

// FLOPs of training on one token. `length`: of the sequences, or where tokens attend within packed
// documents only, of the document of a token on average. The last argument is how many of the
// model's MTP layers are trained.
double flops_per_token(const ModelConfig& config, double length,
                       int64_t num_trained_mtp_layers = 0);

}  // namespace moetron
