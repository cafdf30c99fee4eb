#include "moetron/arch/initial_std.h"

#include <cmath>

#include "moetron/arch/tensors.h"
#include "moetron/base/error.h"

namespace moetron {

double initial_std(const ModelConfig& config, std::string_view tensor) {
  const auto is = [&](const TensorRule& rule) { return tensor.ends_with(concat(".", rule.name)); };
  const bool is_added = is(tensors::kAttentionOut) || is(tensors::kDown);
  if (!is_added) return config.initializer_range;
  return config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_layers));
}

}  // namespace moetron
