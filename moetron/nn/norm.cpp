#include "moetron/nn/norm.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/column_sums.h"
#include "moetron/kernels/norm.h"

namespace moetron {
namespace {

// Its outputs are the normed tensor and, with a second one, the sum.
class RmsNorm final : public JointOperation {
 public:
  RmsNorm(const RmsNormed& normed, size_t num_inputs, Parameter& weight, Operators operators)
      : x_(normed.sum),
        inverse_rms_(normed.inverse_rms),
        num_inputs_(num_inputs),
        weight_(weight),
        operators_(operators) {}

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    const at::Tensor& d_y = d_outputs.front();
    const at::Tensor d_sum = d_outputs.size() > 1 ? d_outputs[1] : at::Tensor();
    if (!d_y.defined()) return std::vector(num_inputs_, d_sum);
    RmsNormGrads grads =
        rms_norm_backward(d_y, d_sum, x_, inverse_rms_, weight_.value(), operators_);
    d_weight_parts_ = std::move(grads.d_weight_parts);
    x_.reset();
    return std::vector(num_inputs_, grads.d_x);
  }

  bool has_weights() const override { return d_weight_parts_.defined() && weight_.needs_grad(); }

  void add_weight_grads() override {
    add_column_sums(weight_.grad(), d_weight_parts_, operators_);
    d_weight_parts_.reset();
  }

 private:
  at::Tensor x_;
  at::Tensor inverse_rms_;     // [..., 1] fp32
  size_t num_inputs_;          // one, or the two that were added
  at::Tensor d_weight_parts_;  // [parts, size] fp32
  Parameter& weight_;
  Operators operators_;
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps, SegmentRun& run) {
  const Operators operators = run.operators().others;
  RmsNormed normed;
  {
    const at::NoGradGuard no_grad;
    normed = rms_norm_forward(x.detach(), {}, weight.value(), eps, operators);
  }
  run.attach({&normed.y}, std::make_shared<RmsNorm>(normed, 1, weight, operators), {x});
  return normed.y;
}

Remake remake_norm(const at::Tensor& x, const Parameter& weight, double eps,
                   const SegmentRun& run) {
  return [x = x.detach(), &weight, eps, operators = run.operators().others] {
    return rms_norm_forward(x, {}, weight.value(), eps, operators).y;
  };
}

NormedSum add_and_norm(const at::Tensor& x, const at::Tensor& delta, Parameter& weight, double eps,
                       SegmentRun& run) {
  const Operators operators = run.operators().others;
  std::vector<at::Tensor> inputs = {x};
  if (delta.defined()) inputs.push_back(delta);
  RmsNormed normed;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor added = delta.defined() ? delta.detach() : delta;
    normed = rms_norm_forward(x.detach(), added, weight.value(), eps, operators);
  }
  NormedSum out{normed.sum.detach(), normed.y};
  run.attach({&out.y, &out.sum},
             std::make_shared<RmsNorm>(normed, inputs.size(), weight, operators), inputs);
  return out;
}

}  // namespace moetron
