// The contract of a layer (DESIGN: idea 1): a program (schedule/layer_program.h) says which nodes
// it has and what flows between them; the layer computes those that are computations, and the
// engine moves what travels and adds up. Each compute node is a segment of its own, forward and
// backward, so that the nodes of two micro-batches may be run in turns (schedule/instructions.h);
// running them in a row is the plain path, by the same code.
#pragma once

#include <functional>
#include <vector>

#include "moetron/autograd/segment.h"
#include "moetron/parallel/micro_batch.h"
#include "moetron/pipeline/dispatch.h"
#include "moetron/pipeline/value.h"
#include "moetron/schedule/layer_program.h"

namespace moetron {

class Parameter;

// What a node may read besides its inputs.
struct NodeCall {
  const MicroBatch& micro_batch;
  const Routing* earlier;  // of a recomputation: the routing of the first time; else null
  SegmentRun& run;
};

class Layer {
 public:
  virtual ~Layer() = default;
  virtual const LayerProgram& program() const = 0;
  // Computes a node for which is_compute(): its inputs, in their order, are values of the segment's
  // own graph, and so are the outputs.
  virtual std::vector<Value> compute(const Node& node, std::vector<Value> inputs,
                                     const NodeCall& call) = 0;
  // How much the label loss that it gives counts in the step's.
  virtual double loss_weight() const { return 1; }
  // Of a layer whose program dispatches.
  virtual Dispatcher* dispatcher() { return nullptr; }
  // The gradient of what combine gives, as it travels back to the experts.
  virtual Value combine_grad(at::Tensor d) { return {.data = std::move(d)}; }
  virtual void visit(const std::function<void(Parameter&)>& visitor) = 0;
};

}  // namespace moetron
