// What a run's checkpoints hold beside weights and state, so that they can be used as the model
// that the run began with could.
#pragma once

#include <string>
#include <vector>

#include "moetron/arch/model_config.h"
#include "moetron/formats/companions.h"
#include "moetron/run/run_spec.h"

namespace moetron {

struct RunStart;

// The tokenizer's files: those of the run's own before those of the model that it began with.
std::vector<CompanionFile> collect_tokenizer_files(const RunStart& start);

// The same, the model's generation_config.json and its code. A model that says nowhere which tokens
// end a text gets a generation_config.json with the tokenizer's.
std::vector<CompanionFile> collect_model_files(const RunStart& start);

// The text of config.json, of weights of this dtype ("bfloat16") beside these files.
std::string model_config_text(const ModelConfig& model, const char* dtype,
                              const std::vector<CompanionFile>& files);
// The text of adapter_config.json, of a run of low-rank updates.
std::string adapter_config_text(const RunSpec& spec, const RunStart& start);

}  // namespace moetron
