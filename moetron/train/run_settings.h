// What a resolved run means for the parts that need torch.
#pragma once

#include "moetron/models/model_settings.h"
#include "moetron/run/run_spec.h"
#include "moetron/train/train_step.h"

namespace moetron {

BatchSettings batch_settings(const RunSpec& spec, c10::Device device);
TrainSettings train_settings(const RunSpec& spec);
// Of this rank of the mesh. dtype auto is bf16 on a GPU, fp32 on a CPU.
ModelSettings model_settings(const RunSpec& spec, Mesh& mesh, c10::Device device);

}  // namespace moetron
