#include "moetron/nn/linear.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"

namespace moetron {
namespace {

class Linear final : public Operation {
 public:
  Linear(at::Tensor x, Parameter& weight, Parameter* bias)
      : x_(std::move(x)), weight_(weight), bias_(bias) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {d_y.matmul(weight_.value().to(d_y.dtype())).to(x_.dtype())};  // [..., in]
  }

  void backward_weight(const at::Tensor& d_y) override {
    const at::Tensor rows = d_y.reshape({-1, d_y.size(-1)});  // [rows, out]
    add_weight_grad(weight_.grad(), rows, x_.reshape({-1, x_.size(-1)}).to(d_y.dtype()));
    if (bias_ != nullptr) bias_->grad().add_(rows.sum(0, /*keepdim=*/false, at::kFloat));
    x_.reset();
  }

 private:
  at::Tensor x_;
  Parameter& weight_;
  Parameter* bias_;
};

}  // namespace

void add_weight_grad(const at::Tensor& accumulator, const at::Tensor& d_y, const at::Tensor& x) {
  at::Tensor sum = accumulator;
  if (x.scalar_type() == at::kFloat) {
    sum.addmm_(d_y.t(), x);
  } else {
    sum.add_(at::mm(d_y.t(), x));
  }
}

at::Tensor linear(const at::Tensor& x, Parameter& weight, SegmentRun& run, Parameter* bias,
                  std::optional<at::ScalarType> dtype) {
  auto operation = std::make_shared<Linear>(x.detach(), weight, bias);
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    const at::ScalarType type = dtype.value_or(x.scalar_type());
    y = at::linear(x.to(type), weight.value().to(type),
                   bias == nullptr ? std::optional<at::Tensor>() : bias->value().to(type));
  }
  run.attach(y, std::move(operation), {x});
  return y;
}

}  // namespace moetron
