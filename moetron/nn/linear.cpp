#include "moetron/nn/linear.h"

#include <utility>

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/device.h"
#include "moetron/kernels/product.h"
#include "moetron/nn/fp8_linear.h"
#include "moetron/nn/low_rank.h"

namespace moetron {
namespace {

class Linear final : public Operation {
 public:
  Linear(const at::Tensor& x, Parameter& weight, Parameter* bias, Remake remake_x,
         Operators operators)
      : remake_x_(std::move(remake_x)),
        type_(x.scalar_type()),
        operators_(operators),
        is_gpu_bf16_(operators == Operators::kFastest && is_gpu_bf16(x) &&
                     is_gpu_bf16(weight.value())),
        weight_(weight),
        bias_(bias) {
    if (!remake_x_ && weight.needs_grad()) x_ = x.detach();
  }

  bool has_weights() const override {
    return weight_.needs_grad() || (bias_ != nullptr && bias_->needs_grad());
  }

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    if (is_in_two_parts(d_y)) {
      const at::Tensor& twice = weight_
                                    .derived(Derived::kTwiceByRows,
                                             [](const at::Tensor& weight) {
                                               return std::vector{at::cat({weight, weight})};
                                             })
                                    .front();
      return {at::cat(in_two_parts(d_y), -1).matmul(twice)};  // [..., in]
    }
    const at::Tensor weight = weight_.value().to(d_y.dtype());
    return {product(d_y, weight, /*transpose_weight=*/false, operators_).to(type_)};  // [..., in]
  }

  void backward_weight(const at::Tensor& d_y) override {
    const at::Tensor d_rows = d_y.reshape({-1, d_y.size(-1)});  // [rows, out]
    if (bias_ != nullptr && bias_->needs_grad()) {
      bias_->grad().add_(d_rows.sum(0, /*keepdim=*/false, at::kFloat));
    }
    if (!weight_.needs_grad()) return;
    if (remake_x_) x_ = std::exchange(remake_x_, {})();
    const at::Tensor x_rows = x_.reshape({-1, x_.size(-1)});  // [rows, in]
    const Parameter::GradTarget grad = weight_.grad_target();
    if (is_in_two_parts(d_y)) {
      const auto parts = in_two_parts(d_rows);
      weight_grad_product(grad.sum, parts[0], x_rows, grad.adds);
      weight_grad_product(grad.sum, parts[1], x_rows, /*adds=*/true);
    } else {
      weight_grad_product(grad.sum, d_rows, x_rows.to(d_y.dtype()), grad.adds, operators_);
    }
    x_.reset();
  }

 private:
  // An fp32 gradient beside bf16 factors on a GPU: as the sum of two bf16 numbers it loses nothing
  // that matters, and x and the weight need not be converted.
  bool is_in_two_parts(const at::Tensor& d_y) const {
    return d_y.scalar_type() == at::kFloat && is_gpu_bf16_;
  }
  static std::vector<at::Tensor> in_two_parts(const at::Tensor& d_y) {
    const at::Tensor first = d_y.to(at::kBFloat16);
    return {first, d_y.sub(first).to(at::kBFloat16)};
  }

  at::Tensor x_;     // undefined where the weight has no gradient
  Remake remake_x_;  // in place of x_
  at::ScalarType type_;
  Operators operators_;
  bool is_gpu_bf16_;  // x and weight, for kernels
  Parameter& weight_;
  Parameter* bias_;
};

}  // namespace

at::Tensor linear(const at::Tensor& x, Parameter& weight, SegmentRun& run, Parameter* bias,
                  std::optional<at::ScalarType> dtype, Remake remake_x) {
  if (weight.fp8()) return fp8_linear(x, weight, run, bias, std::move(remake_x));
  const Remake remake_for_update = weight.adapters().empty() ? Remake() : remake_x;
  const Operators operators = run.operators().others;
  auto operation = std::make_shared<Linear>(x, weight, bias, std::move(remake_x), operators);
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    const at::ScalarType type = dtype.value_or(x.scalar_type());
    const at::Tensor& w = weight.value();
    if (bias != nullptr) {
      y = at::linear(x.to(type), w.to(type), bias->value().to(type));
    } else if (type == at::kFloat) {
      y = product_in_fp32(x, w, operators);
    } else {
      y = product(x.to(type), w.to(type), /*transpose_weight=*/true, operators);
    }
  }
  run.attach(y, std::move(operation), {x});
  return add_low_rank(y, x, weight, run, remake_for_update);
}

}  // namespace moetron
