// Lines about a resolved run, for whoever starts it or plans it.
#pragma once

#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

// "deepseek_v3, 671026 M parameters, 61 layers, 256 experts, 8 a token, vocabulary 129280"
std::string describe_model(const ModelConfig& model);

// "dualpipev, 8 micro-batches a step; layers of chunk 0: 1 1 1 1, of chunk 1: 1 0 1 1"
std::string describe_pipeline(const RunSpec& spec);

}  // namespace moetron
