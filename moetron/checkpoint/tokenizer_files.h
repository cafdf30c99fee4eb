// The files of a tokenizer that a checkpoint carries along.
#pragma once

#include <filesystem>
#include <vector>

#include "moetron/checkpoint/checkpoint.h"

namespace moetron {

// Those of a Hugging Face tokenizer that `folder` holds, with their text. A folder without any is a
// warning.
std::vector<CheckpointFile> read_tokenizer_files(const std::filesystem::path& folder);

}  // namespace moetron
