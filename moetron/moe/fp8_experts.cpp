#include "moetron/moe/fp8_experts.h"

#include <utility>

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/kernels/fp8_product.h"
#include "moetron/kernels/swiglu.h"

namespace moetron {
namespace {

class Fp8ExpertMlp final : public JointOperation {
 public:
  Fp8ExpertMlp(at::Tensor probabilities, RowGroups groups, Parameter& gate_up, Parameter& down,
               bool recomputes)
      : probabilities_(std::move(probabilities)),
        groups_(std::move(groups)),
        gate_up_weight_(gate_up),
        down_weight_(down),
        recomputes_(recomputes) {}

  at::Tensor forward(const Value& rows) {
    MT_CHECK(!rows.scales.defined() || recipe().weight_grad, gate_up_weight_.label(),
             ": its gradient wants factors of its dtype");
    rows_in_fp8_ = in_fp8(rows.data.detach(), rows.scales, recipe().values);
    if (!recipe().weight_grad) rows_ = rows.data.detach();
    compute_gate_up();
    const Fp8Rows activation = swiglu_forward_fp8(gate_up_, probabilities_, recipe().values);
    if (recomputes_) gate_up_.reset();
    if (!recomputes_ && !recipe().weight_grad) rows_in_fp8_ = {};
    return product(activation, down_weight_.quantised().blocks);
  }

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    const at::Tensor& d_y = d_outputs.front();
    if (recomputes_) compute_gate_up();
    const Fp8Rows d_rows = in_fp8(d_y, std::exchange(d_y_scales_, {}), recipe().gradients);
    const at::Tensor d_activation = product(d_rows, down_weight_.quantised().turned);
    if (recipe().weight_grad) {
      auto grads = swiglu_backward_fp8(gate_up_, probabilities_, d_activation, recipe());
      gate_up_.reset();
      const at::Tensor d_x = product(grads.d_gate_up, gate_up_weight_.quantised().turned);
      if (down_weight_.needs_grad()) {
        down_in_fp8_ = {.d_y = d_rows, .x = std::move(grads.activation)};
      }
      if (gate_up_weight_.needs_grad()) {
        gate_up_in_fp8_ = {.d_y = std::move(grads.d_gate_up), .x = std::move(rows_in_fp8_)};
      }
      rows_in_fp8_ = {};
      return {d_x, grads.d_weights};
    }
    SwigluGrads grads = swiglu_backward(gate_up_, probabilities_, d_activation);
    gate_up_.reset();
    const Fp8Rows d_gate_up = quantise_rows(grads.d_gate_up, recipe().gradients);
    if (down_weight_.needs_grad()) down_factors_ = {.d_y = d_y, .x = grads.activation};
    if (gate_up_weight_.needs_grad()) {
      gate_up_factors_ = {.d_y = grads.d_gate_up, .x = std::move(rows_)};
    }
    rows_.reset();
    rows_in_fp8_ = {};
    return {product(d_gate_up, gate_up_weight_.quantised().turned), grads.d_weights};
  }

  bool takes_scaled_grad() const override { return recipe().weight_grad; }
  void take_grad_scales(at::Tensor scales) override { d_y_scales_ = std::move(scales); }

  bool has_weights() const override {
    return gate_up_weight_.needs_grad() || down_weight_.needs_grad();
  }

  void add_weight_grads() override {
    add(down_weight_, std::exchange(down_in_fp8_, {}), std::exchange(down_factors_, {}));
    add(gate_up_weight_, std::exchange(gate_up_in_fp8_, {}), std::exchange(gate_up_factors_, {}));
  }

 private:
  // Of a weight gradient, until its turn.
  struct Fp8Factors {
    Fp8Rows d_y, x;
  };
  struct Factors {
    at::Tensor d_y, x;
  };

  const Fp8Products& recipe() const { return *gate_up_weight_.fp8(); }

  static Fp8Rows in_fp8(const at::Tensor& x, const at::Tensor& scales, at::ScalarType dtype) {
    return scales.defined() ? fp8_rows(x, scales) : quantise_rows(x, dtype);
  }

  at::Tensor product(const Fp8Rows& rows, const Fp8Blocks& weight) const {
    return fp8_grouped_rows_product(rows, weight, groups_.ends(),
                                    gate_up_weight_.value().scalar_type());
  }

  void compute_gate_up() {
    gate_up_ = product(rows_in_fp8_, gate_up_weight_.quantised().blocks);  // [rows, 2 * width]
  }

  void add(Parameter& weight, Fp8Factors in_fp8, Factors factors) {
    if (!weight.needs_grad()) return;
    if (!recipe().weight_grad) {
      return add_grouped_weight_grad(weight.grad_target(), factors.d_y, factors.x, groups_);
    }
    const Fp8Columns d_y = columns_of(std::exchange(in_fp8.d_y, {}), groups_.ends());
    const Fp8Columns x = columns_of(std::exchange(in_fp8.x, {}), groups_.ends());
    const Parameter::GradTarget grad = weight.grad_target();
    fp8_grouped_weight_grad_product(grad.sum, d_y, x, grad.adds);
  }

  at::Tensor probabilities_;  // [rows] fp32
  RowGroups groups_;
  Parameter& gate_up_weight_;
  Parameter& down_weight_;
  bool recomputes_;
  Fp8Rows rows_in_fp8_;
  at::Tensor rows_;  // [rows, hidden], where weight gradients are not in 8 bits
  at::Tensor gate_up_;
  at::Tensor d_y_scales_;
  Fp8Factors gate_up_in_fp8_, down_in_fp8_;  // from input_grads() to add_weight_grads(),
  Factors gate_up_factors_, down_factors_;   // or these
};

}  // namespace

at::Tensor fp8_expert_mlp(const Value& rows, const at::Tensor& probabilities,
                          const RowGroups& groups, Parameter& gate_up, Parameter& down,
                          bool recomputes, SegmentRun& run) {
  const auto operation =
      std::make_shared<Fp8ExpertMlp>(probabilities.detach(), groups, gate_up, down, recomputes);
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = operation->forward(rows);
  }
  run.attach({&y}, operation, {rows.data, probabilities});
  return y;
}

}  // namespace moetron
