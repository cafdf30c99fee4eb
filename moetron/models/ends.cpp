#include "moetron/models/ends.h"

#include <ATen/ATen.h>

#include "moetron/arch/tensors.h"
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

// x [tokens, hidden] -> [documents, hidden]
at::Tensor last_of_documents(const at::Tensor& x, const DocumentBounds& documents) {
  const at::Tensor ends = documents.on_device.narrow(0, 1, documents.on_device.size(0) - 1);
  return x.index_select(0, ends - 1);
}

}  // namespace

EmbeddingLayer::EmbeddingLayer(int64_t vocab_size, int64_t hidden_size,
                               const ModelSettings& settings)
    : shard_{settings.tensor_group(), vocab_size},
      table_(vocab_parameter(tensors::kEmbedding.name, shard_, hidden_size, settings.options)) {}

std::vector<Value> EmbeddingLayer::compute(const Node&, std::vector<Value>, const NodeCall& call) {
  const MicroBatch& micro_batch = call.micro_batch;
  const at::Tensor tokens = micro_batch.tokens.flatten();
  const at::Tensor partial = embedding(tokens, table_, shard_, call.run);  // [tokens, hidden]
  return {{.data = reduce_scatter_tokens(partial, micro_batch.layout, call.run)}};
}

HeadLayer::HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps,
                     const ModelSettings& settings)
    : shard_{settings.tensor_group(), vocab_size},
      norm_eps_(norm_eps),
      norm_(tensors::kFinalNorm.name, {hidden_size}, settings.options,
            {.init = Init::kOnes, .weight_decay = false}),
      weight_(vocab_parameter(tensors::kHead.name, shard_, hidden_size, settings.options)) {}

std::vector<Value> HeadLayer::compute(const Node&, std::vector<Value> inputs,
                                      const NodeCall& call) {
  const MicroBatch& micro_batch = call.micro_batch;
  SegmentRun& run = call.run;
  at::Tensor normed = gather_tokens(rms_norm(inputs[0].data, norm_, norm_eps_, run),
                                    micro_batch.layout, run);  // [tokens, hidden]
  const bool has_labels = micro_batch.labels.defined();
  const bool wants_sum = !micro_batch.wants_log_probabilities;
  if (has_labels && wants_sum && shard_.size() == 1 && run.takes_kernels() &&
      has_linear_cross_entropy(normed)) {
    return {{},
            {.data = linear_cross_entropy_sum(normed, weight_, labels_of(micro_batch),
                                              micro_batch.d_loss * loss_weight(), run)}};
  }
  if (micro_batch.cache != nullptr) normed = last_of_documents(normed, micro_batch.documents);
  const at::Tensor logits = linear(normed, weight_, run);  // [tokens, rows of the shard]
  if (has_labels) {
    const TokenLabels labels = labels_of(micro_batch);
    return {{},
            {.data = wants_sum ? cross_entropy_sum(logits, labels, shard_, run)
                               : label_log_probabilities(logits, labels.labels, shard_, run)}};
  }
  const at::Tensor all = gather_features(logits, micro_batch.layout, run);
  return {{.data = all.narrow(1, 0, shard_.vocab_size)}, {}};  // without the padding of shards
}

void HeadLayer::visit(const std::function<void(Parameter&)>& visitor) {
  visitor(norm_);
  visitor(weight_);
}

}  // namespace moetron
