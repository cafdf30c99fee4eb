// What the options of a run mean for its parts.
#pragma once

#include "moetron/arch/mesh_layout.h"
#include "moetron/config/options.h"
#include "moetron/models/model_settings.h"
#include "moetron/optim/lr_schedule.h"
#include "moetron/schedule/from_options.h"
#include "moetron/train/train_step.h"

namespace moetron {

// Each throws ConfigError where options contradict each other or the model's shape.
LrSchedule lr_schedule(const Options& options);
ParallelSizes mesh_sizes(const Options& options, const ModelConfig& model, int64_t world_size);

// The stages of the pipeline, of the micro-batches of a step. Throws ConfigError as make_schedule()
// does.
PipelineSettings pipeline_settings(const Options& options, const ModelConfig& model,
                                   const ParallelSizes& sizes);
TrainSettings train_settings(const OptimizerOptions& options, const PipelineSettings& pipeline);
// dtype auto is bf16 on a GPU, fp32 on a CPU.
ModelSettings model_settings(const Options& options, const PipelineSettings& pipeline, Mesh& mesh,
                             c10::Device device);

}  // namespace moetron
