// A layer, or a dispatcher, that does as another does: what is made of one overrides what it does
// otherwise.
#pragma once

#include <memory>
#include <utility>

#include "moetron/pipeline/layer.h"

namespace moetron {

class WrappedLayer : public Layer {
 public:
  explicit WrappedLayer(std::unique_ptr<Layer> inner) : inner_(std::move(inner)) {}

  const LayerProgram& program() const override { return inner_->program(); }
  std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                             const NodeCall& call) override {
    return inner_->compute(node, std::move(inputs), call);
  }
  double loss_weight() const override { return inner_->loss_weight(); }
  Dispatcher* dispatcher() override { return inner_->dispatcher(); }
  Value combine_grad(at::Tensor d) override { return inner_->combine_grad(std::move(d)); }
  void visit(const std::function<void(Parameter&)>& visitor) override { inner_->visit(visitor); }

 private:
  std::unique_ptr<Layer> inner_;
};

class WrappedDispatcher : public Dispatcher {
 public:
  // `inner` outlives it.
  explicit WrappedDispatcher(Dispatcher& inner) : inner_(inner) {}

  Pending<at::Tensor> start_combine(const at::Tensor& rows,
                                    std::shared_ptr<const DispatchPlan> plan) override {
    return inner_.start_combine(rows, std::move(plan));
  }
  Pending<DispatchGrads> start_dispatch_backward(
      const at::Tensor& d_rows, const at::Tensor& d_probabilities,
      std::shared_ptr<const DispatchPlan> plan) override {
    return inner_.start_dispatch_backward(d_rows, d_probabilities, std::move(plan));
  }

 protected:
  Pending<Dispatched> send_tokens(const Value& tokens, const Routing& routing) override {
    return inner_.start_dispatch(tokens, routing);
  }
  Pending<Value> send_grads(const Value& d_hidden,
                            std::shared_ptr<const DispatchPlan> plan) override {
    return inner_.start_combine_backward(d_hidden, std::move(plan));
  }

 private:
  Dispatcher& inner_;
};

}  // namespace moetron
