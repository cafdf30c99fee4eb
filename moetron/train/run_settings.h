// What the options of a run mean for its parts.
#pragma once

#include "moetron/arch/mesh_layout.h"
#include "moetron/config/options.h"
#include "moetron/models/model_settings.h"
#include "moetron/optim/lr_schedule.h"
#include "moetron/train/train_step.h"

namespace moetron {

// Each throws ConfigError where options contradict each other or the model's shape.
LrSchedule lr_schedule(const Options& options);
ParallelSizes mesh_sizes(const Options& options, const ModelConfig& model, int64_t world_size);

TrainSettings train_settings(const OptimizerOptions& options);
// dtype auto is bf16 on a GPU, fp32 on a CPU.
ModelSettings model_settings(const Options& options, Mesh& mesh, c10::Device device);

}  // namespace moetron
