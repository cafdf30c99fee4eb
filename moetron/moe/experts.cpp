#include "moetron/moe/experts.h"

#include <ATen/ATen.h>

#include "moetron/autograd/adapter.h"
#include "moetron/autograd/segment.h"
#include "moetron/base/error.h"
#include "moetron/kernels/swiglu.h"
#include "moetron/moe/fp8_experts.h"
#include "moetron/moe/grouped_product.h"
#include "moetron/parallel/rank_shard.h"

namespace moetron {
namespace {

// The low-rank update of stacked weights, in one execution. Of a weight that ranks divide by
// columns h is a partial sum, and so is what it is added to.
class GroupedUpdate {
 public:
  explicit GroupedUpdate(Parameter& weight) {
    MT_CHECK(weight.adapters().size() <= 1, weight.label(), " has several updates");
    if (!weight.adapters().empty() && weight.adapters().front()->is_on)
      adapter_ = weight.adapters().front().get();
  }

  bool needs_grad() const { return adapter_ != nullptr && adapter_->needs_grad(); }

  // y [rows, out] += scale (x A^T) B^T for rows x [rows, in] sorted by expert.
  void add_to(const at::Tensor& y, const at::Tensor& x, const RowGroups& groups) const {
    if (adapter_ == nullptr) return;
    y.add_(grouped_product(scaled_h(x, groups), adapter_->b.value(), groups));
  }
  // d_x [rows, in] += (d_h A), from d_y [rows, out]; keeps d_h where the weights need it.
  void add_input_grad(const at::Tensor& d_x, const at::Tensor& d_y, const RowGroups& groups) {
    if (adapter_ == nullptr) return;
    const at::Tensor d_h =
        grouped_product_transposed(d_y, adapter_->b.value(), groups).mul_(adapter_->scale);
    d_x.add_(grouped_product_transposed(d_h, adapter_->a.value(), groups));
    if (needs_grad()) d_h_ = d_h;
  }
  void add_weight_grads(const at::Tensor& d_y, const at::Tensor& x, const RowGroups& groups) {
    if (!needs_grad()) return;
    if (adapter_->b.needs_grad())
      add_grouped_weight_grad(adapter_->b.grad_target(), d_y, scaled_h(x, groups), groups);
    if (adapter_->a.needs_grad())
      add_grouped_weight_grad(adapter_->a.grad_target(), d_h_, x, groups);
    d_h_.reset();
  }

 private:
  at::Tensor scaled_h(const at::Tensor& x, const RowGroups& groups) const {
    return grouped_product(x, adapter_->a.value(), groups).mul_(adapter_->scale);
  }

  Adapter* adapter_ = nullptr;  // null: there is none
  at::Tensor d_h_;              // [rows, rank], from the input gradients to the weights' turn
};

// down(swiglu(gate_up(x)) * probability) for rows sorted by expert. It keeps its inputs and the
// first product, and computes the activation again, which costs little beside a product; with
// `recomputes` its inputs alone. The second product's output is not needed: the activation is
// weighted before it.
class ExpertMlp final : public Operation {
 public:
  ExpertMlp(at::Tensor rows, at::Tensor probabilities, RowGroups groups, Parameter& gate_up,
            Parameter& down, bool recomputes)
      : rows_(std::move(rows)),
        probabilities_(std::move(probabilities)),
        groups_(std::move(groups)),
        gate_up_weight_(gate_up),
        down_weight_(down),
        gate_up_update_(gate_up),
        down_update_(down),
        recomputes_(recomputes) {}

  at::Tensor forward() {
    compute_gate_up();
    const at::Tensor activation =
        swiglu_forward(gate_up_, probabilities_, groups_.operators());  // [rows, width]
    if (recomputes_) gate_up_.reset();
    const at::Tensor y = grouped_product(activation, down_weight_.value(), groups_);
    down_update_.add_to(y, activation, groups_);
    return y;
  }

  std::vector<at::Tensor> backward_input(const at::Tensor& d_y) override {
    if (recomputes_) compute_gate_up();
    const at::Tensor d_activation =
        grouped_product_transposed(d_y, down_weight_.value(), groups_);  // [rows, width]
    down_update_.add_input_grad(d_activation, d_y, groups_);
    SwigluGrads grads = swiglu_backward(gate_up_, probabilities_, d_activation,
                                        /*with_activation=*/true, groups_.operators());
    gate_up_.reset();
    if (trains_down()) activation_ = grads.activation;  // [rows, width]
    if (trains_gate_up()) d_gate_up_ = grads.d_gate_up;
    const at::Tensor d_rows =
        grouped_product_transposed(grads.d_gate_up, gate_up_weight_.value(), groups_);
    gate_up_update_.add_input_grad(d_rows, grads.d_gate_up, groups_);
    return {d_rows, grads.d_weights};
  }

  bool has_weights() const override { return trains_gate_up() || trains_down(); }

  void backward_weight(const at::Tensor& d_y) override {
    if (down_weight_.needs_grad()) {
      add_grouped_weight_grad(down_weight_.grad_target(), d_y, activation_, groups_);
    }
    down_update_.add_weight_grads(d_y, activation_, groups_);
    activation_.reset();
    if (gate_up_weight_.needs_grad()) {
      add_grouped_weight_grad(gate_up_weight_.grad_target(), d_gate_up_, rows_, groups_);
    }
    gate_up_update_.add_weight_grads(d_gate_up_, rows_, groups_);
    d_gate_up_.reset();
    rows_.reset();
  }

 private:
  void compute_gate_up() {
    gate_up_ = grouped_product(rows_, gate_up_weight_.value(), groups_);  // [rows, 2 * width]
    gate_up_update_.add_to(gate_up_, rows_, groups_);
  }
  bool trains_gate_up() const {
    return gate_up_weight_.needs_grad() || gate_up_update_.needs_grad();
  }
  bool trains_down() const { return down_weight_.needs_grad() || down_update_.needs_grad(); }

  at::Tensor rows_;           // [rows, hidden]
  at::Tensor probabilities_;  // [rows] fp32
  RowGroups groups_;
  Parameter& gate_up_weight_;
  Parameter& down_weight_;
  GroupedUpdate gate_up_update_;
  GroupedUpdate down_update_;
  bool recomputes_;
  at::Tensor gate_up_;
  at::Tensor activation_;  // from backward_input to backward_weight
  at::Tensor d_gate_up_;
};

// The local experts' pieces of one storage: each expert's tensors begin `stride` elements apart.
struct ExpertPieces {
  std::string prefix;
  ExpertLayout layout;
  int64_t stride;
  std::vector<ParameterPiece> pieces = {};

  // "PREFIX3.NAME" of whole shape [rows, columns], `offset` behind its expert's beginning.
  void add(const TensorRule& tensor, std::vector<int64_t> shape, int64_t offset) {
    const ShardOf shard = expert_shard(tensor.shard, layout.tpe_rank(), layout.tpe).shard;
    for (int64_t e = 0; e < layout.num_local(); ++e) {
      pieces.push_back(piece_of_shard(concat(prefix, layout.first_local() + e, ".", tensor.name),
                                      shape, shard, e * stride + offset));
    }
  }
};

Parameter make_gate_up(const std::string& prefix, const ExpertLayout& layout, int64_t hidden,
                       int64_t width, const at::TensorOptions& options) {
  const int64_t part = width / layout.tpe;
  ExpertPieces pieces{prefix, layout, 2 * part * hidden};
  pieces.add(tensors::kGate, {width, hidden}, 0);
  pieces.add(tensors::kUp, {width, hidden}, part * hidden);
  return Parameter(prefix + "gate_up", {layout.num_local(), 2 * part, hidden}, options,
                   std::move(pieces.pieces), {.replicas = kExpertDivided});
}

Parameter make_down(const std::string& prefix, const ExpertLayout& layout, int64_t hidden,
                    int64_t width, const at::TensorOptions& options) {
  const int64_t part = width / layout.tpe;
  ExpertPieces pieces{prefix, layout, hidden * part};
  pieces.add(tensors::kDown, {hidden, width}, 0);
  return Parameter(prefix + "down", {layout.num_local(), hidden, part}, options,
                   std::move(pieces.pieces), {.replicas = kExpertDivided});
}

}  // namespace

Experts::Experts(const std::string& prefix, const ExpertLayout& layout, int64_t hidden_size,
                 int64_t width, const ExpertSettings& settings)
    : settings_(settings),
      gate_up_(make_gate_up(prefix, layout, hidden_size, width, settings.options)),
      down_(make_down(prefix, layout, hidden_size, width, settings.options)) {}

at::Tensor Experts::forward(const Value& rows, const at::Tensor& probabilities, SegmentRun& run) {
  const RowGroups groups(std::get<ExpertRows>(rows.layout), settings_.grouped_gemm,
                         run.operators().others);
  if (gate_up_.fp8()) {
    return fp8_expert_mlp(rows, probabilities, groups, gate_up_, down_, settings_.recompute, run);
  }
  MT_CHECK(!rows.scales.defined(), gate_up_.label(), " is not multiplied in 8 bits");
  const auto operation = std::make_shared<ExpertMlp>(rows.data.detach(), probabilities.detach(),
                                                     groups, gate_up_, down_, settings_.recompute);
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = operation->forward();
  }
  run.attach(y, operation, {rows.data, probabilities});
  return y;
}

void Experts::visit(const ParameterVisitor& visitor) {
  visitor(gate_up_);
  visitor(down_);
}

}  // namespace moetron
