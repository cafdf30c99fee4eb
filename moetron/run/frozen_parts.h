// Which of a model's tensors are only read (--freeze): named parts, and patterns of Hugging Face
// names.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "moetron/arch/model_config.h"

namespace moetron {

struct FrozenParts {
  std::vector<std::string> names;     // as they were given
  std::vector<std::string> patterns;  // of whole names of tensors; '*' stands for any text

  bool empty() const { return patterns.empty(); }
  bool contains(std::string_view tensor) const;
};

// `given`: "embedding", "head", "router", "experts", "shared_experts", "attention", "mlp", "norms",
// or patterns. `fuses_down`: latent attention's down projections are one weight. ConfigError, which
// names what there is, where no tensor of the model answers to one of them; where they freeze a
// part of what lies in one weight (queries, keys and values; gate and up; a layer's experts); and
// where nothing is left to train.
FrozenParts find_frozen_parts(const ModelConfig& config, const std::vector<std::string>& given,
                              bool fuses_down);

}  // namespace moetron
