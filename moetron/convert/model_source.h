// The tensors of a Hugging Face model directory, a checkpoint among them, or of one safetensors
// file.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <vector>

#include "moetron/base/file.h"
#include "moetron/convert/tensor_source.h"
#include "moetron/formats/safetensors_index.h"

namespace moetron {

// Reads by calls, not through a map: memory stays small whatever the size of the model, and a disk
// that fails is an error.
class ModelSource : public TensorSource {
 public:
  // InputError as ModelFiles, and for a tensor whose elements are no whole bytes.
  explicit ModelSource(const std::filesystem::path& path);

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

 private:
  struct Place {
    const FileReader* file = nullptr;
    uint64_t offset = 0;  // bytes
  };

  std::vector<SafetensorsTensor> tensors_;
  std::vector<Place> places_;
  std::vector<std::unique_ptr<FileReader>> files_;
};

}  // namespace moetron
