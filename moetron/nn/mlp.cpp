#include "moetron/nn/mlp.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/nn/linear.h"

namespace moetron {
namespace {

class Swiglu final : public PureOperation {
 public:
  Swiglu(at::Tensor gate_up, at::Tensor weights)
      : gate_up_(std::move(gate_up)), weights_(std::move(weights)) {}

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    const auto halves = gate_up_.chunk(2, -1);
    const at::Tensor sigmoid = halves[0].sigmoid();
    const at::Tensor silu = sigmoid.mul(halves[0]);
    at::Tensor d_product = d_y;
    at::Tensor d_weights;
    if (weights_.defined()) {
      d_weights = d_y.mul(silu).mul_(halves[1]).sum(-1, /*keepdim=*/false, at::kFloat);  // [rows]
      d_product = d_y.mul(weights_.to(d_y.dtype()).unsqueeze(-1));
    }
    at::Tensor d_gate_up = at::empty_like(gate_up_);
    auto d_halves = d_gate_up.chunk(2, -1);
    // silu' = s (1 + gate (1 - s)) = s + silu (1 - s)
    at::mul_out(d_halves[0], d_product.mul(halves[1]), sigmoid.add(silu).sub_(silu.mul(sigmoid)));
    at::mul_out(d_halves[1], d_product, silu);
    return {d_gate_up, d_weights};
  }

 private:
  at::Tensor gate_up_;
  at::Tensor weights_;  // [rows] or undefined
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, const at::Tensor& weights, SegmentRun& run) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    const auto halves = gate_up.chunk(2, -1);
    y = at::silu(halves[0]).mul_(halves[1]);
    if (weights.defined()) y.mul_(weights.to(y.dtype()).unsqueeze(-1));
  }
  std::vector<at::Tensor> inputs = {gate_up};
  if (weights.defined()) inputs.push_back(weights);
  run.attach(
      y, std::make_shared<Swiglu>(gate_up.detach(), weights.defined() ? weights.detach() : weights),
      inputs);
  return y;
}

Mlp::Mlp(const std::string& prefix, int64_t hidden_size, int64_t width, at::ScalarType dtype)
    : gate_up_(prefix + "gate_up", {2 * width, hidden_size}, dtype,
               {piece_of_rows(prefix + "gate_proj.weight", {width, hidden_size}, 0, hidden_size),
                piece_of_rows(prefix + "up_proj.weight", {width, hidden_size}, width, hidden_size)},
               {}),
      down_(prefix + "down_proj.weight", {hidden_size, width}, dtype, {}) {}

at::Tensor Mlp::forward(const at::Tensor& x, SegmentRun& run) {
  return linear(swiglu(linear(x, gate_up_, run), at::Tensor(), run), down_, run);
}

void Mlp::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
