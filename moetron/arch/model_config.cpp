#include "moetron/arch/model_config.h"

#include <algorithm>

#include "moetron/arch/families.h"

namespace moetron {

const char* family_name(ModelConfig::Family family) {
  return traits_of(family).model_type;
}

bool ModelConfig::is_moe_layer(int64_t layer) const {
  if (!moe) return false;
  const auto& dense = moe->mlp_only_layers;
  return layer >= moe->first_k_dense_replace && (layer + 1) % moe->decoder_sparse_step == 0 &&
         std::find(dense.begin(), dense.end(), layer) == dense.end();
}

int64_t ModelConfig::num_moe_layers() const {
  int64_t count = 0;
  for (int64_t layer = 0; layer < num_layers; ++layer) count += is_moe_layer(layer) ? 1 : 0;
  return count;
}

}  // namespace moetron
