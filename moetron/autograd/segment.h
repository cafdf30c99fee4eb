// One execution of a segment for one micro-batch (DESIGN: idea 1 and section 4). The autograd graph
// begins at the segment's inputs and ends at its outputs, so that segments run forward and backward
// in whatever order a schedule wants. Backward comes in two parts: backward() gives the inputs'
// gradients (the schedule's I); weight gradients wait in a queue until run() (the schedule's W).
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

// An operation with a backward of its own: forward is the function that makes it, and these are the
// rest of the triple. Whatever backward needs is a member.
class Operation {
 public:
  virtual ~Operation() = default;
  // Gradients of the inputs that the operation was attached with, in their order; undefined for
  // zero.
  virtual std::vector<at::Tensor> backward_input(const at::Tensor& d_output) = 0;
  // Adds to the parameters' accumulators. Runs after backward_input(), at once or much later.
  virtual void backward_weight(const at::Tensor& d_output) = 0;
};

// An operation without parameters.
class PureOperation : public Operation {
 public:
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
  explicit SegmentRun(bool with_grad);
  SegmentRun(SegmentRun&&) noexcept;
  SegmentRun& operator=(SegmentRun&&) noexcept;
  ~SegmentRun();

  bool with_grad() const { return with_grad_; }

  // Where the graph begins: a leaf that shares the value's memory. Integer tensors need no input().
  at::Tensor input(const at::Tensor& value);
  // Where it ends. Returns the value cut from the graph, whose gradient edge is kept.
  at::Tensor output(const at::Tensor& value);

  // Gradients of the inputs, in the order of input(), given those of the outputs in the order of
  // output(). An undefined tensor stands for zero, in and out. Frees the graph.
  std::vector<at::Tensor> backward(const std::vector<at::Tensor>& d_outputs);

  WeightGradQueue& weight_grads() { return *weight_grads_; }

  // Makes `y`, computed without recording, the output of `operation` in the graph. The operation is
  // part of the graph even where no input of it is (an embedding). Does nothing without gradients.
  void attach(at::Tensor& y, std::shared_ptr<Operation> operation,
              const std::vector<at::Tensor>& inputs);

 private:
  struct Graph;
  bool with_grad_;
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<WeightGradQueue> weight_grads_;  // stable address: nodes keep a pointer
};

}  // namespace moetron
