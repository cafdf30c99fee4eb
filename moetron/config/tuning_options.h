// Options of training a part of a model.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moetron {

struct TuningOptions {
  std::vector<std::string> freeze;  // parts of the model, or names of tensors with '*'
  int64_t lora_rank = 0;            // 0: no low-rank updates
  std::optional<double> lora_alpha;
  double lora_dropout = 0;
  std::vector<std::string> lora_targets;  // empty: all linear layers
  std::string base;                       // directory of an adapter's model; empty: as it says
};

}  // namespace moetron
