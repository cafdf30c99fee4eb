// For tests of this folder: the published runs.
#pragma once

#include <string>

#include "moetron/plan/predict.h"
#include "moetron/run/run_test_data.h"

namespace moetron {

inline const std::string kQwenCommand =
    "simulate --config configs/published/qwen3_235b.toml --pipeline-model-parallel-size 4";
inline const std::string kDeepseekCommand = "simulate --config configs/published/deepseek_v3.toml";

inline Options qwen_options(const std::string& more) {
  return parse(kQwenCommand + " " + more).options;
}

inline Options deepseek_options(const std::string& more) {
  return parse(kDeepseekCommand + " " + more).options;
}

inline RunSpec run_spec(const Options& options) {
  return *resolve_simulation(options).run;
}

inline Prediction predict(const Options& options) {
  const RunSpec spec = run_spec(options);
  return predict(spec, hardware_of(options.runtime.hardware), make_schedule(spec.pipeline.request));
}

}  // namespace moetron
