// The slices that the benchmarks measure: a few layers of a published model, all with experts, and
// of those what one rank holds under expert parallelism.
#pragma once

#include "moetron/arch/model_config.h"
#include "moetron/config/options.h"

namespace moetron {

class Model;

// Layers of Qwen3-235B-A22B or DeepSeek-V3 between an embedding and a head of 32000 tokens, with 16
// experts, top-8, no groups, no expert bias, no aux loss.
ModelConfig slice_config(BenchSlice slice, int64_t num_layers, int64_t seq_length);

// "qwen3-235b", "deepseek-v3", as the option spells it.
const char* slice_name(BenchSlice slice);

// FLOPs of forward and backward of `num_tokens` tokens in sequences of `seq_length`, as the PyTorch
// scripts count that are measured beside: every weight matrix, the router's too, half of the
// attention square, no norms.
double slice_flops(const ModelConfig& config, int64_t num_tokens, int64_t seq_length);

// Fills the parameters on their device, where it takes no time; Model::initialize() draws the same
// numbers in any layout.
void fill_at_random(Model& model, double std);

}  // namespace moetron
