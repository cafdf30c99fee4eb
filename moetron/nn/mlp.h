// The gated feed-forward: down(silu(gate(x)) * up(x)) (Shazeer, arXiv 2002.05202).
#pragma once

#include <functional>
#include <string>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"

namespace moetron {

class SegmentRun;

using ParameterVisitor = std::function<void(Parameter&)>;

// gate_up [rows, 2 * width], the gate first -> silu(gate) * up, [rows, width]. With `weights`
// [rows] (fp32), each row is multiplied by its weight: the router's probability, folded in here
// because `down` is linear and this is its narrow side.
at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& weights, SegmentRun& run);

class Mlp {
 public:
  // Names are prefix + "gate_proj.weight" and so on; the prefix ends in a dot.
  Mlp(const std::string& prefix, int64_t hidden_size, int64_t width, at::ScalarType dtype);

  // x [..., hidden] -> [..., hidden]
  at::Tensor forward(const at::Tensor& x, SegmentRun& run);
  void visit(const ParameterVisitor& visitor);

 private:
  Parameter gate_up_;  // [2 * width, hidden]
  Parameter down_;     // [hidden, width]
};

}  // namespace moetron
