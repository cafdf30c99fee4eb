// What a RopeConfig means in numbers. All results are computed in fp64 or, where the published
// models were trained so, in the fp32 order that transformers uses, and rounded to fp32.
#pragma once

#include <vector>

#include "moetron/arch/model_config.h"

namespace moetron {

// [dim / 2] angles per position: angle(position, i) = position * result[i].
std::vector<float> inverse_frequencies(const RopeConfig& rope);

// Multiplies every cos and sin (YaRN, arXiv 2309.00071; 1 for the other kinds).
float rope_cos_sin_scale(const RopeConfig& rope);

// Multiplies q k^T: head_dim^-0.5, times DeepSeek's mscale^2 where YaRN has mscale_all_dim.
float attention_softmax_scale(const ModelConfig& config);

}  // namespace moetron
