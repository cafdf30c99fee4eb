#include "moetron/nn/embedding.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/parallel/rank_shard.h"

namespace moetron {
namespace {

class Embedding final : public Operation {
 public:
  Embedding(at::Tensor rows, at::Tensor is_foreign, Parameter& table)
      : rows_(std::move(rows)), is_foreign_(std::move(is_foreign)), table_(table) {}

  bool has_weights() const override { return table_.needs_grad(); }
  std::vector<at::Tensor> backward_input(const at::Tensor&) override { return {}; }

  void backward_weight(const at::Tensor& d_y) override {
    at::Tensor d_rows = d_y.to(at::kFloat);  // [tokens, hidden]
    if (is_foreign_.defined()) d_rows = d_rows.masked_fill(is_foreign_.unsqueeze(1), 0);
    // One row after another, so that the order of additions is fixed.
    table_.grad().index_add_(0, rows_, d_rows);
  }

 private:
  at::Tensor rows_;        // [tokens] of the table; 0 for foreign tokens
  at::Tensor is_foreign_;  // [tokens], or undefined where one rank holds all
  Parameter& table_;
};

}  // namespace

int64_t VocabShard::num_padding() const {
  return rows() - std::clamp<int64_t>(vocab_size - first(), 0, rows());
}

Parameter vocab_parameter(const std::string& name, const VocabShard& shard, int64_t hidden_size,
                          const at::TensorOptions& options) {
  const auto [part, replicas] = rank_shard({Division::kVocabulary}, shard.group);
  return Parameter(name, {shard.rows(), hidden_size}, options,
                   {piece_of_shard(name, {shard.vocab_size, hidden_size}, part, 0)},
                   {.replicas = replicas});
}

at::Tensor embedding(const at::Tensor& tokens, Parameter& table, const VocabShard& shard,
                     SegmentRun& run) {
  at::Tensor y, rows = tokens, is_foreign;
  {
    const at::NoGradGuard no_grad;
    if (shard.size() > 1) {
      rows = tokens - shard.first();
      is_foreign = rows.lt(0).logical_or_(rows.ge(shard.rows()));
      rows.masked_fill_(is_foreign, 0);
    }
    y = at::embedding(table.value(), rows);  // [tokens, hidden]
    if (is_foreign.defined()) y.masked_fill_(is_foreign.unsqueeze(1), 0);
  }
  run.attach(y, std::make_shared<Embedding>(rows, is_foreign, table), {});
  return y;
}

}  // namespace moetron
