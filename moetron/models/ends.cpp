#include "moetron/models/ends.h"

#include <ATen/ATen.h>

#include "moetron/nn/embedding.h"
#include "moetron/nn/linear.h"
#include "moetron/nn/loss.h"
#include "moetron/nn/norm.h"

namespace moetron {

EmbeddingLayer::EmbeddingLayer(int64_t vocab_size, int64_t hidden_size, at::ScalarType dtype)
    : table_("model.embed_tokens.weight", {vocab_size, hidden_size}, dtype, {}) {}

at::Tensor EmbeddingLayer::compute(const at::Tensor&, const MicroBatch& micro_batch,
                                   SegmentRun& run) {
  return embedding(micro_batch.tokens, table_, run);
}

HeadLayer::HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps, at::ScalarType dtype)
    : norm_eps_(norm_eps),
      norm_("model.norm.weight", {hidden_size}, dtype,
            {.init = Init::kOnes, .weight_decay = false}),
      weight_("lm_head.weight", {vocab_size, hidden_size}, dtype, {}) {}

at::Tensor HeadLayer::compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                              SegmentRun& run) {
  const at::Tensor logits = linear(rms_norm(hidden, norm_, norm_eps_, run), weight_, run);
  if (!micro_batch.labels.defined()) return logits;
  return cross_entropy_sum(logits.flatten(0, 1), micro_batch.labels.flatten());
}

void HeadLayer::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(norm_);
  visitor(weight_);
}

}  // namespace moetron
