// For tests of this folder: the published runs.
#pragma once

#include <string>

#include "moetron/config/test_args.h"
#include "moetron/plan/predict.h"

namespace moetron {

inline Options qwen_options(const std::string& more) {
  return parse(
             "simulate --config configs/published/qwen3_235b.toml "
             "--pipeline-model-parallel-size 4 " +
             more)
      .options;
}

inline Options deepseek_options(const std::string& more) {
  return parse("simulate --config configs/published/deepseek_v3.toml " + more).options;
}

inline Prediction predict(const Options& options) {
  const RunShape shape = run_shape(options);
  const PipelineSettings pipeline =
      pipeline_settings(options.parallel, shape.model.num_layers, shape.num_micro_batches);
  return predict(shape, read_hardware(options.simulate.hardware), pipeline,
                 make_schedule(pipeline.request));
}

}  // namespace moetron
