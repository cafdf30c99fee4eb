#include "moetron/models/ends.h"

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/loss.h"
#include "moetron/nn/norm.h"
#include "moetron/parallel/token_layout.h"

namespace moetron {
namespace {

TokenLabels labels_of(const MicroBatch& micro_batch) {
  const at::Tensor& weights = micro_batch.loss_weights;
  return {micro_batch.labels.flatten(), weights.defined() ? weights.flatten() : weights};
}

}  // namespace

EmbeddingLayer::EmbeddingLayer(int64_t vocab_size, int64_t hidden_size,
                               const ModelSettings& settings)
    : shard_{settings.tensor_group(), vocab_size},
      table_(vocab_parameter("model.embed_tokens.weight", shard_, hidden_size, settings.options)) {}

at::Tensor EmbeddingLayer::compute(const at::Tensor&, const MicroBatch& micro_batch,
                                   SegmentRun& run) {
  const at::Tensor tokens = micro_batch.tokens.flatten();
  const at::Tensor partial = embedding(tokens, table_, shard_, run);  // [tokens, hidden]
  return reduce_scatter_tokens(partial, micro_batch.layout, run);
}

HeadLayer::HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps,
                     const ModelSettings& settings)
    : shard_{settings.tensor_group(), vocab_size},
      norm_eps_(norm_eps),
      norm_("model.norm.weight", {hidden_size}, settings.options,
            {.init = Init::kOnes, .weight_decay = false}),
      weight_(vocab_parameter("lm_head.weight", shard_, hidden_size, settings.options)) {}

at::Tensor HeadLayer::compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                              SegmentRun& run) {
  const at::Tensor normed =
      gather_tokens(rms_norm(hidden, norm_, norm_eps_, run), micro_batch.layout, run);
  const bool knows_gradient = !run.with_grad() || micro_batch.d_loss;
  if (micro_batch.labels.defined() && shard_.size() == 1 && knows_gradient &&
      has_linear_cross_entropy(normed)) {
    return linear_cross_entropy_sum(normed, weight_, labels_of(micro_batch),
                                    micro_batch.d_loss.value_or(0), run);
  }
  const at::Tensor logits = linear(normed, weight_, run);  // [tokens, rows of the shard]
  if (micro_batch.labels.defined()) {
    return cross_entropy_sum(logits, labels_of(micro_batch), shard_, run);
  }
  MT_CHECK(shard_.size() == 1, "logits of a vocabulary that ", shard_.size(), " ranks divide");
  return logits;
}

void HeadLayer::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(norm_);
  visitor(weight_);
}

}  // namespace moetron
