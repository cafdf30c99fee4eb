// The routed experts that a rank holds: gated feed-forwards whose weights lie stacked in two
// parameters.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/moe/expert_layout.h"
#include "moetron/nn/mlp.h"
#include "moetron/pipeline/dispatch.h"

namespace moetron {

class SegmentRun;

struct ExpertSettings {
  at::TensorOptions options = at::kFloat;  // dtype and device of the parameters
  bool grouped_gemm = true;  // one product for all experts; false: one expert after the other
  bool recompute = false;    // the first product and the activation again in the backward
};

class Experts {
 public:
  // `prefix`, which ends in tensors::kExperts, stands before an expert's number and the names of
  // arch/tensors.h. The shards of an expert divide its width.
  Experts(const std::string& prefix, const ExpertLayout& layout, int64_t hidden_size, int64_t width,
          const ExpertSettings& settings);

  // rows: data [rows, hidden] sorted by local expert, with ExpertRows, and in 8 bits with scales
  // where the weights are multiplied so; probabilities [rows] fp32 -> [rows, hidden], each row
  // weighted; of a shard of the experts: partial sums.
  at::Tensor forward(const Value& rows, const at::Tensor& probabilities, SegmentRun& run);
  void visit(const ParameterVisitor& visitor);

 private:
  ExpertSettings settings_;
  Parameter gate_up_;  // [local experts, 2 * width / shards, hidden], the gate's rows first
  Parameter down_;     // [local experts, hidden, width / shards]
};

}  // namespace moetron
