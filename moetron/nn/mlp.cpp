#include "moetron/nn/mlp.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/nn/linear.h"

namespace moetron {
namespace {

class Swiglu final : public PureOperation {
 public:
  explicit Swiglu(at::Tensor gate_up) : gate_up_(std::move(gate_up)) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {swiglu_backward(gate_up_, {}, d_y).d_gate_up};
  }

 private:
  at::Tensor gate_up_;
};

}  // namespace

at::Tensor swiglu_forward(const at::Tensor& gate_up, const at::Tensor& weights) {
  const auto halves = gate_up.chunk(2, -1);
  at::Tensor y = at::silu(halves[0]).mul_(halves[1]);
  if (weights.defined()) y.mul_(weights.to(y.dtype()).unsqueeze(-1));
  return y;
}

SwigluGrads swiglu_backward(const at::Tensor& gate_up, const at::Tensor& weights,
                            const at::Tensor& d_y) {
  const auto halves = gate_up.chunk(2, -1);
  const at::Tensor sigmoid = halves[0].sigmoid();
  const at::Tensor silu = sigmoid.mul(halves[0]);
  at::Tensor d_product = d_y;
  SwigluGrads grads;
  if (weights.defined()) {
    grads.d_weights =
        d_y.mul(silu).mul_(halves[1]).sum(-1, /*keepdim=*/false, at::kFloat);  // [rows]
    d_product = d_y.mul(weights.to(d_y.dtype()).unsqueeze(-1));
  }
  grads.d_gate_up = at::empty_like(gate_up);
  auto d_halves = grads.d_gate_up.chunk(2, -1);
  // silu' = s (1 + gate (1 - s)) = s + silu (1 - s)
  at::mul_out(d_halves[0], d_product.mul(halves[1]), sigmoid.add(silu).sub_(silu.mul(sigmoid)));
  at::mul_out(d_halves[1], d_product, silu);
  return grads;
}

at::Tensor swiglu(const at::Tensor& gate_up, SegmentRun& run) {
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = swiglu_forward(gate_up, {});
  }
  run.attach(y, std::make_shared<Swiglu>(gate_up.detach()), {gate_up});
  return y;
}

namespace {

ShardOf shard_of(int64_t dim, const Communicator* group) {
  if (group == nullptr) return {.dim = dim};
  return {.dim = dim, .index = group->rank(), .count = group->size()};
}

// gate_proj above up_proj, each divided by rows.
std::vector<ParameterPiece> gate_up_pieces(const std::string& prefix, int64_t hidden_size,
                                           int64_t width, const ShardOf& shard) {
  return {piece_of_shard(prefix + "gate_proj.weight", {width, hidden_size}, shard, 0),
          piece_of_shard(prefix + "up_proj.weight", {width, hidden_size}, shard,
                         width / shard.count * hidden_size)};
}

}  // namespace

Mlp::Mlp(const std::string& prefix, int64_t hidden_size, int64_t width,
         const at::TensorOptions& options, Communicator* tensor_group)
    : gate_up_(prefix + "gate_up", {2 * width / shard_of(0, tensor_group).count, hidden_size},
               options, gate_up_pieces(prefix, hidden_size, width, shard_of(0, tensor_group)),
               {.replicas = Replicas::kData}),
      down_(prefix + "down_proj.weight", {hidden_size, width / shard_of(1, tensor_group).count},
            options,
            {piece_of_shard(prefix + "down_proj.weight", {hidden_size, width},
                            shard_of(1, tensor_group), 0)},
            {.replicas = Replicas::kData}) {}

at::Tensor Mlp::forward(const at::Tensor& x, const TokenShards& shards, SegmentRun& run) {
  const at::Tensor all = gather_tokens(x, shards, run);  // [tokens, hidden]
  const at::Tensor partial = linear(swiglu(linear(all, gate_up_, run), run), down_, run);
  return reduce_scatter_tokens(partial, shards, run);
}

void Mlp::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
