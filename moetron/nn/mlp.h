// The gated feed-forward: down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202).
#pragma once

#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/parallel/token_layout.h"

namespace moetron {

class SegmentRun;

using ParameterVisitor = std::function<void(Parameter&)>;

// gate_up [rows, 2 * width], the gate first -> silu(gate) * up, [rows, width]. In the graph,
// without weights.
at::Tensor swiglu(const at::Tensor& gate_up, SegmentRun& run);

class Mlp {
 public:
  // `prefix`, which ends in a dot, stands before the names of arch/tensors.h. The ranks of
  // `tensor_group` (null: one rank) divide the width.
  Mlp(const std::string& prefix, int64_t hidden_size, int64_t width,
      const at::TensorOptions& options, Communicator* tensor_group);

  // x [slice, hidden], this rank's slice of the tokens -> [slice, hidden]
  at::Tensor forward(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run);
  // The same of x in 8 bits, whose weights are multiplied so.
  at::Tensor forward(const Fp8Rows& x, const TokenLayout& layout, SegmentRun& run);
  void visit(const ParameterVisitor& visitor);

 private:
  at::Tensor behind_gate_up(const at::Tensor& gate_up, const TokenLayout& layout, SegmentRun& run);

  Parameter gate_up_;  // [2 * width, hidden], the width of this rank
  Parameter down_;     // [hidden, width]
};

}  // namespace moetron
