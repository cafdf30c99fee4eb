// A checkpoint of Megatron as Hugging Face tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "moetron/convert/megatron_layout.h"
#include "moetron/convert/tensor_source.h"

namespace moetron {

// Whether a folder holds checkpoints of Megatron in files of ranks, or is one of them.
bool is_megatron_folder(const std::filesystem::path& folder);

// Reads the weights of any layout; optimizer states and _extra_state are read over.
class MegatronSource : public TensorSource {
 public:
  // Of `folder` the iteration `step`, or the one that Megatron noted as the last; or the folder of
  // an iteration itself. InputError, naming the file: files or parameters are missing, of another
  // shape than `config` tells, or such as the model has not.
  MegatronSource(const std::filesystem::path& folder, const ModelConfig& config,
                 std::optional<int64_t> step = {});

  const std::vector<SafetensorsTensor>& tensors() const override { return tensors_; }
  void read(size_t index, uint64_t begin, uint64_t count,
            std::span<std::byte> bytes) const override;

  // What the run that saved was laid out as.
  const MegatronLayout& layout() const { return layout_; }

 private:
  friend class MegatronSourceBuilder;

  // A rectangle of a tensor, whose rows lie one behind the other in a file.
  struct Part {
    size_t file = 0;
    uint64_t offset = 0;  // bytes
    uint64_t row = 0;
    uint64_t rows = 0;
    uint64_t column = 0;
    uint64_t columns = 0;
  };

  std::vector<std::filesystem::path> files_;
  MegatronLayout layout_;
  std::vector<SafetensorsTensor> tensors_;
  std::vector<std::vector<Part>> parts_;  // of each tensor
};

}  // namespace moetron
