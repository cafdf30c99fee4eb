#include "moetron/plan/checkpoint_size.h"

#include <array>
#include <utility>

#include "moetron/arch/inventory.h"

namespace moetron {
namespace {

void add(const TensorInfo& tensor, int64_t count, ModelElements& sum) {
  (tensor.is_buffer ? sum.buffers : sum.trained) += count * tensor.num_elements();
}

}  // namespace

ModelElements model_elements(const ModelConfig& model) {
  ModelElements sum;
  for (const TensorInfo& tensor : end_tensors(model)) add(tensor, 1, sum);
  const int64_t sparse = model.num_moe_layers();
  std::array<int64_t, 2> left{model.num_layers - sparse, sparse};  // by kind
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    // The first of a kind stands for all.
    const int64_t alike = std::exchange(left.at(model.is_moe_layer(layer) ? 1 : 0), 0);
    if (alike == 0) continue;
    for (const TensorInfo& tensor : layer_tensors(model, layer)) {
      if (!tensor.is_expert()) {
        add(tensor, alike, sum);
        continue;
      }
      add(tensor, alike * model.moe->num_experts, sum);
      sum.idle += alike * (model.moe->num_experts - model.moe->top_k) * tensor.num_elements();
    }
  }
  return sum;
}

CheckpointBytes checkpoint_bytes(const RunSpec& spec) {
  const ModelElements elements = model_elements(spec.model);
  const bool is_fp32 = spec.dtype == Dtype::kFp32;
  CheckpointBytes bytes{.weights = (is_fp32 ? 4 : 2) * elements.trained + 4 * elements.buffers};
  if (spec.start.save_optimizer) bytes.optimizer = (is_fp32 ? 8 : 12) * elements.trained;
  return bytes;
}

}  // namespace moetron
