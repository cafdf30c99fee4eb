// Megatron's ways to say what has a shorter name here: options of several spellings, of which below
// here only ours are read.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "moetron/base/mistakes.h"
#include "moetron/config/options.h"

namespace moetron {

// train-samples as train-iters, moe-layer-freq as first-k-dense-replace, the width of shared
// experts as their number, layouts and uneven ends of the pipeline as hetero-pipeline-stages,
// recompute-modules as the kinds of recompute. What has no like here is a mistake.
Options in_own_terms(const Options& given, Mistakes& mistakes);

// "Et*3|(tt|)*29,L": the decoder layers of each stage. Throws ConfigError for what is no layout,
// and for an embedding or loss that is not at its end of the pipeline.
std::vector<int64_t> layers_of_layout(const std::string& layout);

// "([0]*3+[1]*58)", "1": whether each layer has experts; of a number N, one layer in N,
// `num_layers` of them. Throws ConfigError for anything else.
std::vector<bool> expert_layers(const std::string& pattern, int64_t num_layers);

}  // namespace moetron
