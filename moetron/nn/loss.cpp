#include "moetron/nn/loss.h"

#include <algorithm>
#include <limits>

#include <ATen/ATen.h>

#include "moetron/arch/logits.h"
#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/cross_entropy.h"
#include "moetron/kernels/product.h"

namespace moetron {
namespace {

// The cross-entropy of each token, and what its gradient needs.
struct TokenLosses {
  at::Tensor losses;         // [tokens, 1] fp32, 0 without a label
  at::Tensor probabilities;  // [tokens, rows of the shard] fp32, not yet divided by `sums`
  at::Tensor sums;           // [tokens, 1]
  at::Tensor columns;        // [tokens, 1] the label's column here, 0 where it is not here
  at::Tensor is_here;        // [tokens, 1]
  at::Tensor has_label;      // [tokens, 1] fp32
};

class CrossEntropy final : public PureOperation {
 public:
  // d_losses: what the output's gradient is to be multiplied by for that of each token's loss,
  // [tokens, 1] fp32.
  CrossEntropy(TokenLosses made, at::Tensor d_losses, at::ScalarType dtype)
      : probabilities_(made.probabilities.div_(made.sums)),
        columns_(std::move(made.columns)),
        is_here_(std::move(made.is_here)),
        d_losses_(std::move(d_losses)),
        dtype_(dtype) {}

  // softmax minus one at the label, for labelled tokens. d_output: a scalar, or [tokens, 1].
  std::vector<at::Tensor> backward_input(const at::Tensor& d_output) override {
    at::Tensor d = probabilities_;  // [tokens, rows]; nobody needs it afterwards
    d.scatter_add_(1, columns_, is_here_.to(at::kFloat).neg());
    d.mul_(d_losses_.mul(d_output));
    return {d.to(dtype_)};
  }

 private:
  at::Tensor probabilities_;  // [tokens, rows of the shard] fp32
  at::Tensor columns_, is_here_, d_losses_;
  at::ScalarType dtype_;
};

void reduce(const at::Tensor& x, const VocabShard& shard, ReduceOp op) {
  if (shard.size() > 1) shard.group->all_reduce(x, op).wait();
}

TokenLosses token_losses(const at::Tensor& logits, const at::Tensor& labels,
                         const VocabShard& shard) {
  TokenLosses made;
  at::Tensor shifted = logits.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
  if (const int64_t padding = shard.num_padding(); padding > 0) {
    shifted.narrow(1, shard.rows() - padding, padding)
        .fill_(-std::numeric_limits<float>::infinity());
  }
  const at::Tensor largest = shifted.amax(1, /*keepdim=*/true);  // [tokens, 1]
  reduce(largest, shard, ReduceOp::kMax);
  shifted.sub_(largest);
  const at::Tensor has_label = labels.ne(kIgnoredLabel).unsqueeze(1);  // [tokens, 1]
  const at::Tensor column = labels.sub(shard.first()).unsqueeze(1);
  made.is_here = has_label.logical_and(column.ge(0)).logical_and(column.lt(shard.rows()));
  const at::Tensor is_elsewhere = made.is_here.logical_not();
  made.columns = column.masked_fill(is_elsewhere, 0);
  // The label's logit on the one rank that has it, and each rank's share of the divisor.
  const at::Tensor target = shifted.gather(1, made.columns).masked_fill_(is_elsewhere, 0);
  made.probabilities = shifted.exp_();  // [tokens, rows]
  const at::Tensor sums =
      at::stack({target, made.probabilities.sum(1, /*keepdim=*/true)});  // [2, tokens, 1]
  reduce(sums, shard, ReduceOp::kSum);
  made.sums = sums[1];
  made.losses = sums[1].log().sub_(sums[0]).masked_fill_(has_label.logical_not(), 0);
  made.has_label = has_label.to(at::kFloat);
  return made;
}

}  // namespace

at::Tensor cross_entropy_sum(const at::Tensor& logits, const TokenLabels& wanted,
                             const VocabShard& shard, SegmentRun& run) {
  at::Tensor loss;
  std::shared_ptr<Operation> operation;
  {
    const at::NoGradGuard no_grad;
    TokenLosses made = token_losses(logits, wanted.labels, shard);
    at::Tensor weights = made.has_label;
    if (wanted.weights.defined()) {
      weights.mul_(wanted.weights.unsqueeze(1));
      made.losses.mul_(weights);
    }
    loss = made.losses.sum();
    if (run.with_grad()) {
      operation =
          std::make_shared<CrossEntropy>(std::move(made), std::move(weights), logits.scalar_type());
    }
  }
  run.attach(loss, std::move(operation), {logits});
  return loss;
}

namespace {

// Of [tokens]: the operation's own shape is [tokens, 1].
class LabelLogProbabilities final : public PureOperation {
 public:
  explicit LabelLogProbabilities(CrossEntropy losses) : losses_(std::move(losses)) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_log_probabilities) override {
    return losses_.backward_input(d_log_probabilities.unsqueeze(1));
  }

 private:
  CrossEntropy losses_;
};

}  // namespace

at::Tensor label_log_probabilities(const at::Tensor& logits, const at::Tensor& labels,
                                   const VocabShard& shard, SegmentRun& run) {
  at::Tensor log_probabilities;
  std::shared_ptr<Operation> operation;
  {
    const at::NoGradGuard no_grad;
    TokenLosses made = token_losses(logits, labels, shard);
    log_probabilities = made.losses.squeeze(1).neg();
    if (run.with_grad()) {
      at::Tensor d_losses = made.has_label.neg();
      operation = std::make_shared<LabelLogProbabilities>(
          CrossEntropy(std::move(made), std::move(d_losses), logits.scalar_type()));
    }
  }
  run.attach(log_probabilities, std::move(operation), {logits});
  return log_probabilities;
}

namespace {

// Its gradients were computed by the forward.
class LinearCrossEntropy final : public PureOperation {
 public:
  explicit LinearCrossEntropy(at::Tensor d_hidden) : d_hidden_(std::move(d_hidden)) {}
  std::vector<at::Tensor> backward_input(const at::Tensor&) override {
    return {std::move(d_hidden_)};
  }

 private:
  at::Tensor d_hidden_;
};

}  // namespace

bool has_linear_cross_entropy(const at::Tensor& hidden) {
  return has_cross_entropy_kernel(hidden);
}

at::Tensor linear_cross_entropy_sum(const at::Tensor& hidden, Parameter& weight,
                                    const TokenLabels& wanted, double d_loss, SegmentRun& run) {
  const at::Tensor rows = hidden.detach();
  const int64_t tokens = rows.size(0);
  const int64_t together =
      std::max<int64_t>(1, kLogitBytes / (weight.value().size(0) * rows.element_size()));
  at::Tensor loss, d_hidden;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor losses = at::empty({tokens}, rows.options().dtype(at::kFloat));
    std::vector<at::Tensor> d_parts;
    for (int64_t first = 0; first < tokens; first += together) {
      const int64_t count = std::min(together, tokens - first);
      const at::Tensor part = rows.narrow(0, first, count);
      const at::Tensor logits =
          product(part, weight.value(), /*transpose_weight=*/true);  // [count, vocab]
      const at::Tensor part_losses = losses.narrow(0, first, count);
      part_losses.copy_(cross_entropy_in_place(logits, wanted.labels.narrow(0, first, count),
                                               kIgnoredLabel, d_loss));
      if (wanted.weights.defined()) {
        const at::Tensor weights = wanted.weights.narrow(0, first, count);
        part_losses.mul_(weights);
        logits.mul_(weights.unsqueeze(1));
      }
      if (!run.with_grad()) continue;
      d_parts.push_back(product(logits, weight.value(), /*transpose_weight=*/false));
      if (!weight.needs_grad()) continue;
      const Parameter::GradTarget grad = weight.grad_target();
      weight_grad_product(grad.sum, logits, part, grad.adds);
    }
    loss = losses.sum();
    if (!d_parts.empty()) d_hidden = d_parts.size() == 1 ? d_parts.front() : at::cat(d_parts);
  }
  run.attach(loss, std::make_shared<LinearCrossEntropy>(std::move(d_hidden)), {hidden});
  return loss;
}

}  // namespace moetron
