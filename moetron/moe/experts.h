// The routed experts that a rank holds: gated feed-forwards whose weights lie stacked in two
// parameters.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/nn/mlp.h"

namespace moetron {

class SegmentRun;

class Experts {
 public:
  // Expert e's tensors are prefix + "e.gate_proj.weight" and so on; `prefix` ends in
  // "mlp.experts.".
  Experts(const std::string& prefix, int64_t num_experts, int64_t hidden_size, int64_t width,
          at::ScalarType dtype);

  // rows [rows, hidden] sorted by expert, probabilities [rows] fp32 -> [rows, hidden], each row
  // weighted.
  at::Tensor forward(const at::Tensor& rows, const at::Tensor& probabilities,
                     const std::vector<int64_t>& rows_per_expert, SegmentRun& run);
  void visit(const ParameterVisitor& visitor);

 private:
  Parameter gate_up_;  // [experts, 2 * width, hidden], the gate's rows first
  Parameter down_;     // [experts, hidden, width]
};

// The grouped product: rows of expert e times weight[e]^T. x [rows, in] sorted by expert, weight
// [experts, out, in] -> [rows, out].
at::Tensor grouped_linear(const at::Tensor& x, const std::vector<int64_t>& rows_per_expert,
                          Parameter& weight, SegmentRun& run);

}  // namespace moetron
