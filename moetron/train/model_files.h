// What a run's checkpoints hold beside weights and state, so that they can be used as the model
// that the run began with could.
#pragma once

#include <vector>

#include "moetron/formats/companions.h"

namespace moetron {

struct RunStart;

// The tokenizer's files, those of the run's own before those of the model that it began with, the
// model's generation_config.json and its code. A model that says nowhere which tokens end a text
// gets a generation_config.json with the tokenizer's.
std::vector<CompanionFile> collect_model_files(const RunStart& start);

}  // namespace moetron
