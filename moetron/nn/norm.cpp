#include "moetron/nn/norm.h"

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"

namespace moetron {
namespace {

// 1 / rms of the last dimension, kept: [..., 1] fp32.
at::Tensor inverse_rms(const at::Tensor& x, double eps) {
  return x.to(at::kFloat).square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();
}

class RmsNorm final : public Operation {
 public:
  RmsNorm(at::Tensor x, at::Tensor scale, Parameter& weight)
      : x_(std::move(x)), scale_(std::move(scale)), weight_(weight) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    const at::Tensor normed = x_.to(at::kFloat).mul(scale_);
    at::Tensor d_normed = d_y.to(at::kFloat).mul(weight_.value().to(at::kFloat));
    const at::Tensor along = at::mul(d_normed, normed).mean(-1, /*keepdim=*/true);  // [..., 1]
    d_normed.sub_(normed.mul(along)).mul_(scale_);
    return {d_normed.to(x_.dtype())};
  }

  void backward_weight(const at::Tensor& d_y) override {
    const at::Tensor normed = x_.to(at::kFloat).mul(scale_).to(x_.dtype()).to(at::kFloat);
    const int64_t size = x_.size(-1);
    weight_.grad().add_(d_y.to(at::kFloat).mul(normed).reshape({-1, size}).sum(0));
    x_.reset();
  }

 private:
  at::Tensor x_;
  at::Tensor scale_;  // [..., 1] fp32
  Parameter& weight_;
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, Parameter& weight, double eps, SegmentRun& run) {
  at::Tensor y;
  std::shared_ptr<Operation> operation;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor scale = inverse_rms(x, eps);
    y = x.to(at::kFloat).mul(scale).to(x.dtype()).mul(weight.value());
    operation = std::make_shared<RmsNorm>(x.detach(), scale, weight);
  }
  run.attach(y, std::move(operation), {x});
  return y;
}

}  // namespace moetron
