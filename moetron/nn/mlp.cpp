#include "moetron/nn/mlp.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/kernels/swiglu.h"
#include "moetron/nn/linear.h"

namespace moetron {
namespace {

class Swiglu final : public PureOperation {
 public:
  explicit Swiglu(at::Tensor gate_up) : gate_up_(std::move(gate_up)) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {swiglu_backward(gate_up_, {}, d_y, /*with_activation=*/false).d_gate_up};
  }

 private:
  at::Tensor gate_up_;
};

}  // namespace

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
               {.replicas = kTensorDivided}),
      down_(prefix + "down_proj.weight", {hidden_size, width / shard_of(1, tensor_group).count},
            options,
            {piece_of_shard(prefix + "down_proj.weight", {hidden_size, width},
                            shard_of(1, tensor_group), 0)},
            {.replicas = kTensorDivided}) {}

at::Tensor Mlp::forward(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run) {
  const at::Tensor all = gather_tokens(x, layout, run);  // [tokens, hidden]
  const at::Tensor partial = linear(swiglu(linear(all, gate_up_, run), run), down_, run);
  return reduce_scatter_tokens(partial, layout, run);
}

void Mlp::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
