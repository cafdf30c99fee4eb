// The file .metadata of torch.distributed.checkpoint: which tensors a folder holds, cut into which
// boxes, and where in its .distcp files each box lies, as what torch.save wrote. It is a pickle,
// read without executing it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/formats/safetensors.h"

namespace moetron {

// A box of a tensor: elements [offsets, offsets + sizes) of each dimension, within the tensor.
struct DistBox {
  std::vector<int64_t> offsets;
  std::vector<int64_t> sizes;
  size_t file = 0;     // index of DistMetadata::files()
  uint64_t begin = 0;  // bytes in the file
  uint64_t bytes = 0;
};

struct DistTensor {
  std::string name;
  std::optional<SafetensorsDtype> dtype;  // nothing where safetensors has none like it
  std::vector<int64_t> shape;
  std::vector<DistBox> boxes;
};

class DistMetadata {
 public:
  // InputError, naming the file, for whatever torch.distributed.checkpoint does not write: boxes
  // beyond their tensor or without a place, names of files that are none of the folder, extensions
  // that transform what is stored.
  explicit DistMetadata(const std::filesystem::path& path);

  // Sorted by name; what is no tensor is left out.
  const std::vector<DistTensor>& tensors() const { return tensors_; }
  const DistTensor* find(std::string_view name) const;
  // Names in the folder.
  const std::vector<std::string>& files() const { return files_; }

 private:
  friend class DistMetadataReader;

  std::vector<DistTensor> tensors_;
  std::vector<std::string> files_;
};

}  // namespace moetron
