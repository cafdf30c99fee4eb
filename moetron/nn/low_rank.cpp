#include "moetron/nn/low_rank.h"

#include <algorithm>
#include <utility>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/autograd/adapter.h"
#include "moetron/autograd/segment.h"
#include "moetron/kernels/product.h"

namespace moetron {
namespace {

at::Tensor in_rows(const at::Tensor& x) {
  return x.reshape({-1, x.size(-1)});
}

// y += scale (x A^T) B^T of every update. The products with all A are one, of [rank, in] matrices
// one below the other; `h` are its columns. Under tensor parallelism x holds all tokens, and of a
// weight that is divided by columns a part of each: its h is a partial sum then, and so is y, which
// the ranks add up behind the product as they do that of W.
class LowRank final : public Operation {
 public:
  LowRank(const at::Tensor& x, Parameter& weight, Remake remake_x, Operators operators)
      : remake_x_(std::move(remake_x)), operators_(operators) {
    for (const auto& adapter : weight.adapters())
      if (adapter->is_on) adapters_.push_back(adapter.get());
    if (!remake_x_ && has_weights()) x_ = x.detach();
  }

  bool is_empty() const { return adapters_.empty(); }
  bool has_weights() const override {
    return std::any_of(adapters_.begin(), adapters_.end(),
                       [](const Adapter* adapter) { return adapter->needs_grad(); });
  }

  // y [..., out], contiguous
  void add_to(const at::Tensor& y, const at::Tensor& x) {
    const at::Tensor h = product(in_rows(x), all_a(), /*transpose_weight=*/true, operators_);
    const at::Tensor y_rows = y.view({-1, y.size(-1)});
    scaled_h_ = split(h);
    for (size_t i = 0; i < adapters_.size(); ++i) {
      scaled_h_[i] = scaled_h_[i].mul(adapters_[i]->scale);
      rows_of(*adapters_[i], y_rows).addmm_(scaled_h_[i], adapters_[i]->b.value().t());
    }
    if (!has_weights()) scaled_h_.clear();
  }

  // -> of x, and of y as it was
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    const at::Tensor d_rows = in_rows(d_y);
    std::vector<at::Tensor> d_h;
    for (const Adapter* adapter : adapters_)
      d_h.push_back(rows_of(*adapter, d_rows).matmul(adapter->b.value()).mul_(adapter->scale));
    const at::Tensor all_d_h = d_h.size() == 1 ? d_h.front() : at::cat(d_h, 1);
    const at::Tensor d_x = product(all_d_h, all_a(), /*transpose_weight=*/false, operators_);
    if (has_weights()) d_h_ = std::move(d_h);
    std::vector<int64_t> shape = d_y.sizes().vec();
    shape.back() = d_x.size(1);
    return {d_x.view(shape), d_y};
  }

  void backward_weight(const at::Tensor& d_y) override {
    if (remake_x_) x_ = std::exchange(remake_x_, {})();
    const at::Tensor x_rows = in_rows(x_), d_rows = in_rows(d_y);
    for (size_t i = 0; i < adapters_.size(); ++i) {
      Adapter& adapter = *adapters_[i];
      add_grad(adapter.b, rows_of(adapter, d_rows), scaled_h_[i]);
      add_grad(adapter.a, d_h_[i], x_rows);
    }
    x_.reset();
    scaled_h_.clear();
    d_h_.clear();
  }

 private:
  static at::Tensor rows_of(const Adapter& adapter, const at::Tensor& y) {
    return y.narrow(1, adapter.first_row, adapter.num_rows());
  }

  void add_grad(Parameter& factor, const at::Tensor& d_y, const at::Tensor& x) const {
    if (!factor.needs_grad()) return;
    const Parameter::GradTarget grad = factor.grad_target();
    weight_grad_product(grad.sum, d_y, x, grad.adds, operators_);
  }

  at::Tensor all_a() const {
    if (adapters_.size() == 1) return adapters_.front()->a.value();
    std::vector<at::Tensor> factors;
    for (const Adapter* adapter : adapters_) factors.push_back(adapter->a.value());
    return at::cat(factors);  // [ranks, in]
  }
  std::vector<at::Tensor> split(const at::Tensor& h) const {
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const Adapter* adapter : adapters_) {
      const int64_t rank = adapter->a.value().size(0);
      parts.push_back(h.narrow(1, first, rank));
      first += rank;
    }
    return parts;
  }

  std::vector<Adapter*> adapters_;
  at::Tensor x_;
  Remake remake_x_;  // in place of x_
  Operators operators_;
  std::vector<at::Tensor> scaled_h_;  // [rows, rank] each; from the forward to the weights' turn
  std::vector<at::Tensor> d_h_;       // likewise, from backward_input on
};

}  // namespace

at::Tensor add_low_rank(const at::Tensor& y, const at::Tensor& x, Parameter& weight,
                        SegmentRun& run, Remake remake_x) {
  if (weight.adapters().empty()) return y;
  const auto operation =
      std::make_shared<LowRank>(x, weight, std::move(remake_x), run.operators().others);
  if (operation->is_empty()) return y;
  at::Tensor sum;
  {
    const at::NoGradGuard no_grad;
    sum = y.detach();
    operation->add_to(sum, x);
  }
  run.attach(sum, operation, {x, y});
  return sum;
}

}  // namespace moetron
