// The two ends of a model: the embedding, and the final norm with head and loss.
#pragma once

#include "moetron/autograd/parameter.h"
#include "moetron/pipeline/layer.h"

namespace moetron {

class EmbeddingLayer final : public SingleSegmentLayer {
 public:
  EmbeddingLayer(int64_t vocab_size, int64_t hidden_size, at::ScalarType dtype);
  at::Tensor compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                     SegmentRun& run) override;
  void visit(const std::function<void(Parameter&)>& visitor) override { visitor(table_); }
  Parameter& table() { return table_; }

 private:
  Parameter table_;  // [vocab, hidden]
};

class HeadLayer final : public SingleSegmentLayer {
 public:
  HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps, at::ScalarType dtype);
  // The summed loss over the micro-batch's labels; without labels the logits [batch, seq, vocab].
  at::Tensor compute(const at::Tensor& hidden, const MicroBatch& micro_batch,
                     SegmentRun& run) override;
  void visit(const std::function<void(Parameter&)>& visitor) override;
  // The head reads the embedding's table instead of one of its own.
  void tie_to(EmbeddingLayer& embedding) { weight_.tie_to(embedding.table()); }

 private:
  double norm_eps_;
  Parameter norm_;
  Parameter weight_;  // [vocab, hidden]
};

}  // namespace moetron
