// One execution of a segment for one micro-batch (DESIGN: idea 1 and section 4). The autograd graph
// begins at the segment's inputs and ends at its outputs, so that segments run forward and backward
// in whatever order a schedule wants. Backward comes in two parts: backward() gives the inputs'
// gradients (the schedule's I); weight gradients wait in a queue until run() (the schedule's W).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/kernels/operators.h"

namespace moetron {

// An operation with a backward of its own: forward is the function that makes it, and these are the
// rest of the triple. Whatever backward needs is a member.
class JointOperation {
 public:
  virtual ~JointOperation() = default;
  // Gradients of the inputs that the operation was attached with, in their order, from those of its
  // outputs; undefined for zero, in and out.
  virtual std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) = 0;
  virtual bool has_weights() const = 0;
  // Adds to the parameters' accumulators. Runs after input_grads(), at once or much later.
  virtual void add_weight_grads() = 0;
  // Whether the gradient of its output may be in 8 bits; its scales then come before it.
  virtual bool takes_scaled_grad() const { return false; }
  virtual void take_grad_scales(at::Tensor /*scales*/) {}
};

// An operation of one output.
class Operation : public JointOperation {
 public:
  virtual std::vector<at::Tensor> backward_input(const at::Tensor& d_output) = 0;
  virtual void backward_weight(const at::Tensor& d_output) = 0;

  std::vector<at::Tensor> input_grads(const std::vector<at::Tensor>& d_outputs) final {
    if (has_weights()) d_output_ = d_outputs.front();
    return backward_input(d_outputs.front());
  }
  bool has_weights() const override { return true; }
  void add_weight_grads() final { backward_weight(std::exchange(d_output_, {})); }

 private:
  at::Tensor d_output_;  // until the weights' turn
};

// An operation without parameters.
class PureOperation : public Operation {
 public:
  bool has_weights() const final { return false; }
  void backward_weight(const at::Tensor&) final {}
};

// Weight gradients that were computed far enough to be finished later, in the order of their
// making.
class WeightGradQueue {
 public:
  void push(std::function<void()> task) { tasks_.push_back(std::move(task)); }
  void run() { run_some(size()); }  // each task adds to its parameter's accumulator
  void run_some(size_t count);      // the oldest so many
  void move_to(WeightGradQueue& later);
  size_t size() const { return tasks_.size(); }
  bool empty() const { return tasks_.empty(); }

 private:
  std::deque<std::function<void()>> tasks_;
};

class SegmentRun {
 public:
  // Without gradients (evaluation, generation) nothing is recorded.
  explicit SegmentRun(bool with_grad, OperatorChoice operators = {});
  SegmentRun(SegmentRun&&) noexcept;
  SegmentRun& operator=(SegmentRun&&) noexcept;
  ~SegmentRun();

  bool with_grad() const { return with_grad_; }
  const OperatorChoice& operators() const { return operators_; }
  // Whether operations may take kernels (but attention, which has its own choice).
  bool takes_kernels() const { return operators_.others == Operators::kFastest; }

  // Where the graph begins: a leaf that shares the value's memory. Integer tensors need no input().
  at::Tensor input(const at::Tensor& value);
  // Where it ends. Returns the value cut from the graph, whose gradient edge is kept.
  at::Tensor output(const at::Tensor& value);

  // Gradients of the inputs, in the order of input(), given those of the outputs in the order of
  // output(). An undefined tensor stands for zero, in and out. `scales`: of gradients in 8 bits, by
  // output, undefined for any other; whatever made such an output takes_scaled_grad(). Frees the
  // graph.
  std::vector<at::Tensor> backward(const std::vector<at::Tensor>& d_outputs,
                                   const std::vector<at::Tensor>& scales = {});

  WeightGradQueue& weight_grads() { return *weight_grads_; }

  // Makes `outputs`, computed without recording, those of `operation` in the graph. The operation
  // is part of the graph even where no input of it is (an embedding). Does nothing without
  // gradients.
  void attach(const std::vector<at::Tensor*>& outputs, std::shared_ptr<JointOperation> operation,
              const std::vector<at::Tensor>& inputs);
  void attach(at::Tensor& output, std::shared_ptr<Operation> operation,
              const std::vector<at::Tensor>& inputs) {
    attach(std::vector{&output}, std::move(operation), inputs);
  }

 private:
  struct Graph;
  bool with_grad_;
  OperatorChoice operators_;
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<WeightGradQueue> weight_grads_;  // stable address: nodes keep a pointer
};

}  // namespace moetron
