// A model's tensors into the shards of a Hugging Face directory.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "moetron/convert/tensor_source.h"
#include "moetron/formats/manifest.h"

namespace moetron {

struct WriteSettings {
  uint64_t shard_bytes = 5'000'000'000;  // of tensors in a file; a single tensor may be more
  int num_threads = 1;
  // Blocks that are written, of so many: called by one thread at a time.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
};

// Writes model.safetensors, or shards with their index, through to the disk, and returns the files'
// entries for the manifest. Each thread reads, converts, hashes and writes one block of 16 MiB at a
// time: memory does not grow with the model. `folder` is there. ConfigError, with the system's
// reason, where the disk refuses; what the source throws.
std::vector<ManifestFile> write_model(const TensorSource& source,
                                      const std::filesystem::path& folder,
                                      const WriteSettings& settings);

}  // namespace moetron
