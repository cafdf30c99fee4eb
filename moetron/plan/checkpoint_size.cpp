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

namespace {

int64_t lora_elements(const LoraConfig& lora, const ModelConfig& model) {
  int64_t sum = 0;
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    for (const TensorInfo& tensor : layer_tensors(model, layer)) {
      const int64_t alike = tensor.is_expert() ? model.moe->num_experts : 1;
      for (const TensorInfo& factor : lora_tensors(lora, tensor))
        sum += alike * factor.num_elements();
    }
  }
  return sum;
}

}  // namespace

int64_t trained_elements(const RunSpec& spec) {
  if (spec.lora) return lora_elements(*spec.lora, spec.model);
  if (spec.frozen.empty()) return model_elements(spec.model).trained;
  int64_t sum = 0;
  for (const TensorInfo& tensor : tensor_inventory(spec.model)) {
    const bool is_trained = !tensor.is_buffer && !spec.frozen.contains(tensor.name);
    if (is_trained) sum += tensor.num_elements();
  }
  return sum;
}

CheckpointBytes checkpoint_bytes(const RunSpec& spec) {
  const ModelElements elements = model_elements(spec.model);
  const int64_t trained = trained_elements(spec);
  const int64_t weights = spec.lora ? trained : elements.trained;  // an adapter is saved alone
  const bool is_fp32 = spec.dtype == Dtype::kFp32;
  CheckpointBytes bytes{.weights =
                            (is_fp32 ? 4 : 2) * weights + (spec.lora ? 0 : 4 * elements.buffers)};
  if (spec.start.save_optimizer) bytes.optimizer = (is_fp32 ? 8 : 12) * trained;
  return bytes;
}

}  // namespace moetron
