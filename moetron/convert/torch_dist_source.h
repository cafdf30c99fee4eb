// A checkpoint of Megatron in its sharded format, torch-dist, as Hugging Face tensors.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "moetron/arch/model_config.h"
#include "moetron/convert/placed_tensors.h"

namespace moetron {

// The format that Megatron saves in unless it is told otherwise (dist_checkpointing): in the folder
// of an iteration common.pt, metadata.json, .metadata, and .distcp files with the parts of global
// tensors. Their names are those of one rank's model; the layers of a decoder are one tensor with a
// dimension for them, or numbered, and so are experts.
class TorchDistSource : public PlacedTensors {
 public:
  // As MegatronSource. _extra_state and what is no tensor are read over, the optimizer's tensors
  // are left out.
  TorchDistSource(const std::filesystem::path& folder, const ModelConfig& config,
                  std::optional<int64_t> step = {});

  // Names of the optimizer's tensors.
  const std::vector<std::string>& left_out() const { return left_out_; }

 private:
  friend class TorchDistSourceBuilder;

  std::vector<std::string> left_out_;
};

}  // namespace moetron
