// The router: which experts each token goes to, with what weight, and the losses and statistics
// that keep their load even. DeepSeek-V2 (arXiv 2405.04434), DeepSeek-V3 (arXiv 2412.19437, with
// the loss-free bias of arXiv 2408.15664) and Qwen3-MoE are settings of it.
//
// Letters in shapes: E experts, K chosen a token, G groups of experts.
#pragma once

#include <optional>
#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/config/choices.h"
#include "moetron/kernels/router_rule.h"
#include "moetron/nn/mlp.h"
#include "moetron/parallel/micro_batch.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

class SegmentRun;

struct RouterSettings : RouterRule {
  int64_t hidden_size = 0;
  int64_t num_experts = 0;
  bool fp32_logits = true;  // the product in fp32 (DeepSeek), or in the activations' dtype (Qwen)
  bool expert_bias = false;
  double bias_update_rate = 0;
  enum class AuxLoss { kNone, kSequence, kBatch } aux_loss = AuxLoss::kNone;
  double aux_loss_coeff = 0;
  std::optional<double> capacity_factor;  // rows of an expert over the mean; empty: no drop
  TokenDropPolicy drop_policy = TokenDropPolicy::kProbs;
  // For measurements: random logits by this seed instead of the router's, which get the gradients
  // (Megatron's --moe-router-force-load-balancing).
  std::optional<int64_t> random_seed;
};

struct RouterOutput {
  Routing routing;  // probabilities are part of the graph
  // This rank's part of coefficient * loss * tokens of the micro-batch; undefined without.
  at::Tensor aux_loss;
};

class Router {
 public:
  // `prefix`, which ends in tensors::kRouter, stands before the names of arch/tensors.h.
  Router(const std::string& prefix, const RouterSettings& settings,
         const at::TensorOptions& options);

  // x [slice, hidden], this rank's slice of the micro-batch; `count` adds it to counts(). Padding
  // goes nowhere. A recomputation passes `earlier`, the routing of the first time: the same choice,
  // whatever rounding or the bias do.
  RouterOutput forward(const at::Tensor& x, const MicroBatch& micro_batch, bool count,
                       const Routing* earlier, SegmentRun& run);

  // How often each expert was chosen by this rank's tokens since the last take, [E] int64; before
  // any drop.
  at::Tensor& counts() { return counts_; }
  // bias += rate * sign(mean load - load), from the counts of the whole global batch; zeroes them.
  void update_bias();

  const std::string& name() const { return weight_.label(); }
  const RouterSettings& settings() const { return settings_; }
  void visit(const ParameterVisitor& visitor);

 private:
  struct Scored {
    at::Tensor scores;   // [slice, E] fp32
    at::Tensor chosen;   // [slice, K] int64
    at::Tensor weights;  // [slice, K] fp32
  };

  Scored score(const at::Tensor& logits, int64_t num_counted, const Routing* earlier,
               SegmentRun& run);
  Scored score_by_kernel(const at::Tensor& logits, int64_t num_counted, const Routing* earlier,
                         SegmentRun& run);
  at::Tensor choose(const at::Tensor& scores) const;
  at::Tensor drop(const at::Tensor& chosen, const at::Tensor& probabilities,
                  const MicroBatch& micro_batch) const;
  at::Tensor aux_loss(const at::Tensor& scores, const at::Tensor& experts,
                      const MicroBatch& micro_batch) const;

  RouterSettings settings_;
  Parameter weight_;               // [E, hidden]
  std::optional<Parameter> bias_;  // [E] fp32, moved by update_bias() alone
  at::Tensor counts_;
};

}  // namespace moetron
