// The two ends of a model: the embedding, and the final norm with head and loss.
#pragma once

#include "moetron/models/model_settings.h"
#include "moetron/nn/embedding.h"
#include "moetron/pipeline/layer.h"

namespace moetron {

class EmbeddingLayer final : public Layer {
 public:
  EmbeddingLayer(int64_t vocab_size, int64_t hidden_size, const ModelSettings& settings);
  const LayerProgram& program() const override { return embedding_program(); }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override;
  void visit(const std::function<void(Parameter&)>& visitor) override { visitor(table_); }
  Parameter& table() { return table_; }

 private:
  VocabShard shard_;
  Parameter table_;  // [rows of the shard, hidden]
};

class HeadLayer final : public Layer {
 public:
  HeadLayer(int64_t vocab_size, int64_t hidden_size, double norm_eps,
            const ModelSettings& settings);
  const LayerProgram& program() const override { return head_program(); }
  // -> logits, loss: the summed loss over the micro-batch's labels, or the labels'
  // log-probabilities where the record wants them; without labels the logits [tokens, vocab], or
  // where there is a cache [documents, vocab], of each document's last token.
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override;
  void visit(const std::function<void(Parameter&)>& visitor) override;
  Parameter& weight() { return weight_; }

 private:
  VocabShard shard_;
  double norm_eps_;
  Parameter norm_;
  Parameter weight_;  // [rows of the shard, hidden]
};

}  // namespace moetron
