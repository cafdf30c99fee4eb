#include "moetron/autograd/segment.h"

#include <type_traits>
#include <utility>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include "moetron/base/error.h"

namespace moetron {

using torch::autograd::Edge;
using torch::autograd::edge_list;
using torch::autograd::variable_list;

namespace {

// No gradient is in 8 bits: where a value is, the engine must leave its gradient's type alone.
bool has_gradient_of_other_type(const at::Tensor& value) {
  return at::isFloat8Type(value.scalar_type());
}

// libtorch 2.13 counts nodes intrusively, 2.11 by shared_ptr.
using NodePointer = decltype(Edge::function);

template <class T, class... Args>
NodePointer make_node(Args&&... args) {
  if constexpr (std::is_same_v<NodePointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::make_shared<T>(std::forward<Args>(args)...);
  } else {
    return c10::make_intrusive<T>(std::forward<Args>(args)...);
  }
}

// The graph's view of an operation.
struct OperationNode : torch::autograd::Node {
  OperationNode(std::shared_ptr<JointOperation> made, WeightGradQueue* weight_grads)
      : operation(std::move(made)), queue(weight_grads) {}

  variable_list apply(variable_list&& d_outputs) override {
    const at::NoGradGuard no_grad;
    variable_list d_inputs = operation->input_grads(std::exchange(d_outputs, {}));
    MT_CHECK(d_inputs.size() < next_edges().size(), "more gradients than inputs");
    d_inputs.resize(next_edges().size());  // the anchor's is undefined
    if (operation->has_weights()) queue->push([op = operation] { op->add_weight_grads(); });
    return d_inputs;
  }

  void release_variables() override { operation.reset(); }

  std::shared_ptr<JointOperation> operation;
  WeightGradQueue* queue;
};

void give_scales(const Edge& root, const at::Tensor& scales) {
  auto* const node = dynamic_cast<OperationNode*>(root.function.get());
  MT_CHECK(node != nullptr && node->operation->takes_scaled_grad(),
           "a gradient with scales goes to an operation that takes none");
  node->operation->take_grad_scales(scales);
}

}  // namespace

struct SegmentRun::Graph {
  variable_list leaves;
  edge_list roots;
  // A leaf that every operation with parameters also hangs from: through it the engine reaches
  // operations that have no differentiable input.
  at::Tensor anchor;
};

void WeightGradQueue::run_some(size_t count) {
  const at::NoGradGuard no_grad;
  for (; count > 0; --count) {
    // Taken out first: the task frees what it holds as soon as it is done.
    const auto task = std::move(tasks_.front());
    tasks_.pop_front();
    task();
  }
}

void WeightGradQueue::move_to(WeightGradQueue& later) {
  for (auto& task : tasks_) later.tasks_.push_back(std::move(task));
  tasks_.clear();
}

SegmentRun::SegmentRun(bool with_grad, OperatorChoice operators)
    : with_grad_(with_grad),
      operators_(operators),
      graph_(std::make_unique<Graph>()),
      weight_grads_(std::make_unique<WeightGradQueue>()) {
  if (with_grad_) graph_->anchor = at::zeros({}).requires_grad_();
}

SegmentRun::SegmentRun(SegmentRun&&) noexcept = default;
SegmentRun& SegmentRun::operator=(SegmentRun&&) noexcept = default;
SegmentRun::~SegmentRun() = default;

at::Tensor SegmentRun::input(const at::Tensor& value) {
  if (!with_grad_) return value;
  at::Tensor leaf = value.detach();
  leaf.requires_grad_();
  if (has_gradient_of_other_type(leaf)) leaf.set_grad_dtype(std::nullopt);
  graph_->leaves.push_back(leaf);
  return leaf;
}

at::Tensor SegmentRun::output(const at::Tensor& value) {
  if (!with_grad_) return value;
  graph_->roots.push_back(value.requires_grad() ? torch::autograd::impl::gradient_edge(value)
                                                : Edge());
  return value.detach();
}

std::vector<at::Tensor> SegmentRun::backward(const std::vector<at::Tensor>& d_outputs,
                                             const std::vector<at::Tensor>& scales) {
  MT_CHECK(with_grad_, "backward of a segment that ran without gradients");
  MT_CHECK(d_outputs.size() == graph_->roots.size(), "a segment with ", graph_->roots.size(),
           " outputs got ", d_outputs.size(), " gradients");
  edge_list roots;
  variable_list d_roots;
  for (size_t i = 0; i < d_outputs.size(); ++i) {
    if (!d_outputs[i].defined() || !graph_->roots[i].is_valid()) continue;
    roots.push_back(graph_->roots[i]);
    d_roots.push_back(d_outputs[i]);
    if (i < scales.size() && scales[i].defined()) give_scales(roots.back(), scales[i]);
  }
  edge_list ends;
  for (const at::Tensor& leaf : graph_->leaves) {
    ends.push_back(torch::autograd::impl::gradient_edge(leaf));
  }
  ends.push_back(torch::autograd::impl::gradient_edge(graph_->anchor));
  variable_list d_inputs(ends.size());
  if (!roots.empty()) {
    d_inputs = torch::autograd::Engine::get_default_engine().execute(
        roots, d_roots, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/false,
        ends);
  }
  d_inputs.pop_back();  // the anchor's
  graph_ = std::make_unique<Graph>();
  return d_inputs;
}

void SegmentRun::attach(const std::vector<at::Tensor*>& outputs,
                        std::shared_ptr<JointOperation> operation,
                        const std::vector<at::Tensor>& inputs) {
  if (!with_grad_) return;
  const bool takes_scaled_grad = operation->takes_scaled_grad();
  NodePointer node = make_node<OperationNode>(std::move(operation), weight_grads_.get());
  edge_list edges;
  for (const at::Tensor& input : inputs) {
    edges.push_back(input.requires_grad() ? torch::autograd::impl::gradient_edge(input) : Edge());
  }
  edges.push_back(torch::autograd::impl::gradient_edge(graph_->anchor));
  node->set_next_edges(std::move(edges));
  for (size_t i = 0; i < outputs.size(); ++i) {
    torch::autograd::create_gradient_edge(*outputs[i], node);
    if (takes_scaled_grad || has_gradient_of_other_type(*outputs[i]))
      node->mutable_input_metadata(i).set_grad_dtype(std::nullopt);
  }
}

}  // namespace moetron
