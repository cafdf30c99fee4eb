// A model's tensors as a checkpoint of Megatron.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "moetron/convert/megatron_layout.h"
#include "moetron/convert/tensor_source.h"
#include "moetron/formats/companions.h"

namespace moetron {

struct MegatronReport {
  uint64_t bytes = 0;  // of all tensors in all files
  int num_files = 0;
  std::vector<std::string>
      left_out;  // tensors of the source that Megatron's model has no place for
};

struct MegatronSettings {
  int num_threads = 1;  // each writes one file at a time and holds a few times 8 MiB
  // Pieces of 8 MiB that are written, of so many: called by one thread at a time.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  // Called with the folder when all is written, and before it appears under its name: where this
  // throws, it never does.
  std::function<void(const std::filesystem::path& folder, const MegatronReport& report)> check = {};
};

// Writes FOLDER/release/mp_rank_*/model_optim_rng.pt, the file that names the release as the last,
// and `files` beside them. FOLDER appears whole or not at all; it must not be there, or be empty.
// InputError, with the name and both shapes, for a tensor that the source lacks or has otherwise
// than `config` tells; ConfigError for a layout that the model does not fit, and as NewFolder.
MegatronReport write_megatron(const TensorSource& source, const ModelConfig& config,
                              const MegatronLayout& layout, const std::vector<CompanionFile>& files,
                              const std::filesystem::path& folder,
                              const MegatronSettings& settings);

}  // namespace moetron
