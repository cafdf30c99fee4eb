// Writing slices as safetensors files. A file is laid out by the global tensors, and every slice
// goes to its place in it, whatever its layout in memory was. A file is made block by block (16
// MiB, the manifest's), each gathered from the slices, hashed from that buffer, then written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <c10/core/ScalarType.h>

#include "moetron/autograd/parameter.h"
#include "moetron/formats/manifest.h"
#include "moetron/formats/safetensors.h"

namespace moetron {

// The format's type of a torch type; InternalError for those that checkpoints never hold.
SafetensorsDtype stored_dtype(at::ScalarType type);

// One safetensors file to be: its layout, and the slices that fill it.
struct TensorFile {
  std::string name;  // relative to the checkpoint, "model.safetensors"
  SafetensorsLayout layout;
  std::vector<NamedSlice> slices;
};

// Slices of one file. InternalError where the slices of a tensor disagree in shape or type, or do
// not add up to the whole tensor.
TensorFile plan_file(const std::string& name, const std::vector<NamedSlice>& slices);

// model.safetensors, or as many shards as it takes for none to hold more than `shard_bytes` of
// tensors (a single tensor may), filled in the order of the slices.
std::vector<TensorFile> plan_model_files(const std::vector<NamedSlice>& slices,
                                         uint64_t shard_bytes);

// Writes folder/file.name through to the disk and returns its entry for the manifest. ConfigError
// with the system's reason where that fails.
ManifestFile write_tensor_file(const std::filesystem::path& folder, const TensorFile& file);

}  // namespace moetron
