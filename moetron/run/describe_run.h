// Lines about a resolved run, for whoever starts it or plans it.
#pragma once

#include <string>

#include "moetron/run/run_spec.h"

namespace moetron {

// "deepseek_v3, 671026 M parameters, 61 layers, 256 experts, 8 a token, vocabulary 129280"
std::string describe_model(const ModelConfig& model);

// "low-rank updates (rank 8, scale 2) of q_proj, v_proj: 0.5 M parameters; all others are frozen",
// or which parts are frozen; empty where all is trained. `trained`: elements.
std::string describe_tuning(const RunSpec& spec, int64_t trained);
// "dualpipev, 8 micro-batches a step; layers of chunk 0: 1 1 1 1, of chunk 1: 1 0 1 1"
std::string describe_pipeline(const RunSpec& spec);

}  // namespace moetron
