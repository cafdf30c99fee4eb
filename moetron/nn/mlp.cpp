#include "moetron/nn/mlp.h"

#include <ATen/ATen.h>

#include "moetron/autograd/segment.h"
#include "moetron/kernels/swiglu.h"
#include "moetron/nn/fp8_linear.h"
#include "moetron/nn/linear.h"
#include "moetron/parallel/rank_shard.h"

namespace moetron {
namespace {

class Swiglu final : public PureOperation {
 public:
  Swiglu(at::Tensor gate_up, Operators operators)
      : gate_up_(std::move(gate_up)), operators_(operators) {}
  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    return {swiglu_backward(gate_up_, {}, d_y, /*with_activation=*/false, operators_).d_gate_up};
  }

 private:
  at::Tensor gate_up_;
  Operators operators_;
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up, SegmentRun& run) {
  const Operators operators = run.operators().others;
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = swiglu_forward(gate_up, {}, operators);
  }
  run.attach(y, std::make_shared<Swiglu>(gate_up.detach(), operators), {gate_up});
  return y;
}

namespace {

// gate_proj above up_proj, each divided by rows.
Parameter make_gate_up(const std::string& prefix, int64_t hidden_size, int64_t width,
                       const at::TensorOptions& options, const Communicator* tensor_group) {
  const auto [gate, replicas] = rank_shard(tensors::kGate.shard, tensor_group);
  const ShardOf up = rank_shard(tensors::kUp.shard, tensor_group).shard;
  const int64_t part = width / gate.count;
  return Parameter(
      prefix + "gate_up", {2 * part, hidden_size}, options,
      {piece_of_shard(prefix + tensors::kGate.name, {width, hidden_size}, gate, 0),
       piece_of_shard(prefix + tensors::kUp.name, {width, hidden_size}, up, part * hidden_size)},
      {.replicas = replicas});
}

Parameter make_down(const std::string& prefix, int64_t hidden_size, int64_t width,
                    const at::TensorOptions& options, const Communicator* tensor_group) {
  const std::string name = prefix + tensors::kDown.name;
  const auto [shard, replicas] = rank_shard(tensors::kDown.shard, tensor_group);
  return Parameter(name, {hidden_size, width / shard.count}, options,
                   {piece_of_shard(name, {hidden_size, width}, shard, 0)}, {.replicas = replicas});
}

}  // namespace

Mlp::Mlp(const std::string& prefix, int64_t hidden_size, int64_t width,
         const at::TensorOptions& options, Communicator* tensor_group)
    : gate_up_(make_gate_up(prefix, hidden_size, width, options, tensor_group)),
      down_(make_down(prefix, hidden_size, width, options, tensor_group)) {}

at::Tensor Mlp::forward(const at::Tensor& x, const TokenLayout& layout, SegmentRun& run) {
  const at::Tensor all = gather_tokens(x, layout, run);  // [tokens, hidden]
  return behind_gate_up(linear(all, gate_up_, run), layout, run);
}

at::Tensor Mlp::forward(const Fp8Rows& x, const TokenLayout& layout, SegmentRun& run) {
  Fp8Rows all = x;
  if (layout.size() > 1) {
    all = fp8_rows(gather_tokens(x.values, layout, run), gather_tokens(scales_by_row(x), layout));
  }
  return behind_gate_up(fp8_linear(all, gate_up_, run), layout, run);
}

at::Tensor Mlp::behind_gate_up(const at::Tensor& gate_up, const TokenLayout& layout,
                               SegmentRun& run) {
  return reduce_scatter_tokens(linear(swiglu(gate_up, run), down_, run), layout, run);
}

void Mlp::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
