#include "moetron/nn/fp8_linear.h"

#include <utility>

#include <ATen/ATen.h>

#include "moetron/autograd/parameter.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/kernels/fp8_product.h"
#include "moetron/kernels/product.h"

namespace moetron {
namespace {

class Fp8Linear final : public JointOperation {
 public:
  Fp8Linear(Parameter& weight, Parameter* bias, Remake remake_x)
      : weight_(weight), bias_(bias), remake_x_(std::move(remake_x)) {}

  // x [rows, in] -> [rows, out]
  at::Tensor forward(const at::Tensor& x) {
    const Fp8Rows rows = quantise_rows(x, recipe().values);
    if (weight_.needs_grad() && !remake_x_) keep_x(x, rows);
    return product(rows, x.scalar_type());
  }
  at::Tensor forward(const Fp8Rows& rows) {
    MT_CHECK(recipe().weight_grad, weight_.label(), ": its gradient wants factors of its dtype");
    if (weight_.needs_grad()) x_in_fp8_ = {rows.values.detach(), rows.scales};
    return product(rows, weight_.value().scalar_type());
  }

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) override {
    const at::Tensor& d_y = d_outputs.front();
    const at::Tensor d_rows = d_y.reshape({-1, d_y.size(-1)});  // [rows, out]
    const Fp8Rows rows = quantise_rows(d_rows, recipe().gradients);
    if (weight_.needs_grad() && recipe().weight_grad) d_y_in_fp8_ = rows;
    if (weight_.needs_grad() && !recipe().weight_grad) d_y_ = d_rows;
    if (bias_ != nullptr && bias_->needs_grad()) {
      d_bias_ = d_rows.sum(0, /*keepdim=*/false, at::kFloat);
    }
    const at::Tensor d_x = fp8_product(rows, weight_.quantised().turned, d_y.scalar_type());
    std::vector<int64_t> shape = d_y.sizes().vec();
    shape.back() = d_x.size(1);
    return {d_x.view(shape)};
  }

  bool has_weights() const override {
    return weight_.needs_grad() || (bias_ != nullptr && bias_->needs_grad());
  }

  void add_weight_grads() override {
    if (d_bias_.defined()) bias_->grad().add_(std::exchange(d_bias_, {}));
    if (!weight_.needs_grad()) return;
    if (remake_x_) {
      const at::Tensor x = std::exchange(remake_x_, {})();
      const at::Tensor x_rows = x.reshape({-1, x.size(-1)});
      keep_x(x_rows, recipe().weight_grad ? quantise_rows(x_rows, recipe().values) : Fp8Rows{});
    }
    const Parameter::GradTarget grad = weight_.grad_target();
    if (recipe().weight_grad) {
      fp8_weight_grad_product(grad.sum, columns_of(std::exchange(d_y_in_fp8_, {})).blocks,
                              columns_of(std::exchange(x_in_fp8_, {})).blocks, grad.adds);
    } else {
      weight_grad_product(grad.sum, std::exchange(d_y_, {}), std::exchange(x_, {}), grad.adds);
    }
  }

 private:
  const Fp8Products& recipe() const { return *weight_.fp8(); }
  at::Tensor product(const Fp8Rows& x, at::ScalarType dtype) const {
    at::Tensor y = fp8_product(x, weight_.quantised().blocks, dtype);
    if (bias_ != nullptr) y.add_(bias_->value());
    return y;
  }
  void keep_x(const at::Tensor& x, const Fp8Rows& rows) {
    if (recipe().weight_grad) {
      x_in_fp8_ = rows;
    } else {
      x_ = x.detach();
    }
  }

  Parameter& weight_;
  Parameter* bias_;
  Remake remake_x_;
  Fp8Rows x_in_fp8_, d_y_in_fp8_;  // until the weight's turn,
  at::Tensor x_, d_y_;             // or these
  at::Tensor d_bias_;
};

class Rounding final : public PureOperation {
 public:
  std::vector<at::Tensor> backward_input(const at::Tensor& d) override { return {d}; }
};

void check_gpu(const at::Tensor& weight, const std::string& label, const Fp8Products& products) {
  MT_CHECK_CONFIG(
      has_fp8_products(weight.device()),
      "fp8-format: this GPU has no products in 8 bits with a scale for each 128 numbers; "
      "an H100 or H200 has them");
  MT_CHECK_CONFIG(products.gradients == at::kFloat8_e4m3fn,
                  "fp8-format (hybrid) works on CPUs alone; on a GPU it must be e4m3");
  MT_CHECK_CONFIG(weight.scalar_type() == at::kBFloat16,
                  "fp8-format on a GPU needs dtype (fp32) to be bf16");
  constexpr int64_t kMultiple = 16;
  const int64_t out = weight.size(-2), in = weight.size(-1);
  MT_CHECK_CONFIG(out % kMultiple == 0 && in % kMultiple == 0,
                  "fp8-format on a GPU needs sizes that are multiples of ", kMultiple, "; ", label,
                  " is [", out, ", ", in, "]");
}

}  // namespace

void multiply_in_fp8(Parameter& weight, const Fp8Products& products) {
  if (weight.value().is_cuda()) check_gpu(weight.value(), weight.label(), products);
  weight.multiply_in_fp8(products);
}

at::Tensor fp8_linear(const at::Tensor& x, Parameter& weight, SegmentRun& run, Parameter* bias,
                      Remake remake_x) {
  const auto operation = std::make_shared<Fp8Linear>(weight, bias, std::move(remake_x));
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = operation->forward(x.reshape({-1, x.size(-1)}));
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() = y.size(1);
    y = y.view(shape);
  }
  run.attach({&y}, operation, {x});
  return y;
}

Fp8Rows quantise_rows(const at::Tensor& x, at::ScalarType dtype, SegmentRun& run) {
  Fp8Rows rows;
  {
    const at::NoGradGuard no_grad;
    rows = quantise_rows(x.detach(), dtype);
  }
  run.attach(rows.values, std::make_shared<Rounding>(), {x});
  return rows;
}

at::Tensor fp8_linear(const Fp8Rows& x, Parameter& weight, SegmentRun& run) {
  const auto operation = std::make_shared<Fp8Linear>(weight, /*bias=*/nullptr, Remake{});
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = operation->forward(x);
  }
  run.attach({&y}, operation, {x.values});
  return y;
}

}  // namespace moetron
