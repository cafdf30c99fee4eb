#include "moetron/models/transformer_layer.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/nn/norm.h"

namespace moetron {
namespace {

constexpr ParameterSettings kNormSettings{.init = Init::kOnes, .weight_decay = false};

}  // namespace

std::string layer_prefix(int64_t index) {
  return "model.layers." + std::to_string(index) + ".";
}

TransformerLayer::TransformerLayer(int64_t index, int64_t hidden_size, double norm_eps,
                                   const ModelSettings& settings, TransformerLayerParts parts)
    : index_(index),
      norm_eps_(norm_eps),
      input_norm_(layer_prefix(index) + "input_layernorm.weight", {hidden_size}, settings.options,
                  kNormSettings),
      post_attention_norm_(layer_prefix(index) + "post_attention_layernorm.weight", {hidden_size},
                           settings.options, kNormSettings),
      parts_(std::move(parts)) {
  MT_CHECK((parts_.mlp == nullptr) != (parts_.moe == nullptr),
           "a layer has either a dense MLP or experts");
}

AttentionOutput TransformerLayer::attention(const at::Tensor& hidden, const MicroBatch& micro_batch,
                                            const Routing* earlier, SegmentRun& run) {
  AttentionCache* cache =
      micro_batch.cache == nullptr ? nullptr : &micro_batch.cache->layer(index_);
  const NormedSum input = add_and_norm(hidden, {}, input_norm_, norm_eps_, run);
  const at::Tensor mixed = parts_.attention->forward(
      input.y, remake_norm(input.sum, input_norm_, norm_eps_), micro_batch, cache, run);
  const NormedSum second = add_and_norm(input.sum, mixed, post_attention_norm_, norm_eps_, run);
  AttentionOutput out;
  out.residual = second.sum;
  out.normed = second.y;
  if (parts_.moe) {
    const bool counts = micro_batch.training && earlier == nullptr;
    RouterOutput routed = parts_.moe->router.forward(out.normed, micro_batch, counts, earlier, run);
    out.routing = routed.routing;
    out.aux_loss = routed.aux_loss;
  }
  return out;
}

at::Tensor TransformerLayer::experts(const at::Tensor& rows, const at::Tensor& probabilities,
                                     const ExpertRows& rows_per_expert,
                                     const MicroBatch& micro_batch, SegmentRun& run) {
  if (parts_.mlp) return parts_.mlp->forward(rows, micro_batch.layout, run);
  return parts_.moe->experts.forward(rows, probabilities, rows_per_expert, run);
}

bool TransformerLayer::has_shared_expert() const {
  return parts_.moe && parts_.moe->shared_expert.has_value();
}

at::Tensor TransformerLayer::shared_expert(const at::Tensor& normed, const MicroBatch& micro_batch,
                                           SegmentRun& run) {
  return parts_.moe->shared_expert->forward(normed, micro_batch.layout, run);
}

Dispatcher* TransformerLayer::dispatcher() {
  return parts_.moe ? parts_.moe->dispatcher.get() : nullptr;
}

void TransformerLayer::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(input_norm_);
  parts_.attention->visit(visitor);
  visitor(post_attention_norm_);
  if (parts_.mlp) {
    parts_.mlp->visit(visitor);
    return;
  }
  parts_.moe->router.visit(visitor);
  parts_.moe->experts.visit(visitor);
  if (parts_.moe->shared_expert) parts_.moe->shared_expert->visit(visitor);
}

}  // namespace moetron
