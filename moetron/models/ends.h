// The two ends of a model: the embedding, and the final norm with head and loss.
#pragma once

#include "moetron/models/model_settings.h"
#include "moetron/nn/embedding.h"
#include "moetron/pipeline/layer.h"

namespace moetron {

class EmbeddingLayer final : public SingleSegmentLayer {
 public:
  EmbeddingLayer(int64_t vocab_size, int64_t hidden_size, const ModelSettings& settings);
  at::Tensor compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                     SegmentRun& run) override;
  void visit(const std::function<void(Parameter&)>& visitor) override { visitor(table_); }
  std::string purpose() const override { return "embedding"; }
  Parameter& table() { return table_; }

 private:
  VocabShard shard_;
  Parameter table_;  // [rows of the shard, hidden]
};

class HeadLayer final : public SingleSegmentLayer {
 public:
  HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps,
            const ModelSettings& settings);
  // The summed loss over the micro-batch's labels; without labels the logits [tokens, vocab], on
  // one tensor-parallel rank only.
  at::Tensor compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                     SegmentRun& run) override;
  void visit(const std::function<void(Parameter&)>& visitor) override;
  std::string purpose() const override { return "head and loss"; }
  // The head reads the embedding's table instead of one of its own.
  void tie_to(EmbeddingLayer& embedding) { weight_.tie_to(embedding.table()); }
  Parameter& weight() { return weight_; }

 private:
  VocabShard shard_;
  double norm_eps_;
  Parameter norm_;
  Parameter weight_;  // [rows of the shard, hidden]
};

}  // namespace moetron
