// A checkpoint of Megatron, in files of ranks, as Hugging Face tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "moetron/convert/megatron_layout.h"
#include "moetron/convert/placed_tensors.h"

namespace moetron {

// Reads the weights of any layout; optimizer states and _extra_state are read over.
class MegatronSource : public PlacedTensors {
 public:
  // Of `folder` the iteration `step`, or the one that Megatron noted as the last; or the folder of
  // an iteration itself. InputError, naming the file: files or parameters are missing, of another
  // shape than `config` tells, or such as the model has not.
  MegatronSource(const std::filesystem::path& folder, const ModelConfig& config,
                 std::optional<int64_t> step = {});

  // What the run that saved was laid out as.
  const MegatronLayout& layout() const { return layout_; }

 private:
  friend class MegatronSourceBuilder;

  MegatronLayout layout_;
};

}  // namespace moetron
