// A model's tensors as a checkpoint of Megatron.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "moetron/convert/megatron_layout.h"
#include "moetron/convert/tensor_source.h"

namespace moetron {

struct MegatronSettings {
  int num_threads = 1;  // each writes one file at a time and holds 16 MiB of it
  // Bytes that are written, of so many: called by one thread at a time.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

struct MegatronReport {
  uint64_t bytes = 0;  // of all tensors in all files
  int num_files = 0;
  std::vector<std::string>
      left_out;  // tensors of the source that Megatron's model has no place for
};

// Writes FOLDER/release/mp_rank_*/model_optim_rng.pt, and the file that names the release as the
// last: the checkpoint is there when all of it is. InputError, with the name and both shapes, for a
// tensor that the source lacks or has otherwise than `config` tells; ConfigError for a layout that
// the model does not fit and for a folder that holds a checkpoint already.
MegatronReport write_megatron(const TensorSource& source, const ModelConfig& config,
                              const MegatronLayout& layout, const std::filesystem::path& folder,
                              const MegatronSettings& settings);

}  // namespace moetron
