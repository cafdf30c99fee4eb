// A chunk: the layers that a rank holds in one piece of the pipeline, and one micro-batch's way
// through it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "moetron/pipeline/layer.h"
#include "moetron/pipeline/pipeline_trace.h"
#include "moetron/schedule/instructions.h"

namespace moetron {

class MemoryMeter;

struct Chunk {
  std::vector<std::unique_ptr<Layer>> layers;  // none: what comes in goes out
  RecomputeSettings recompute;
  OperatorChoice operators = {};

  ChunkProgram program() const;
};

// How a forward or a backward is run.
struct WalkSettings {
  bool with_grad = true;        // of a forward: a backward follows
  bool defers_weights = false;  // of a backward: weight gradients wait in weight_grads() (I)
  std::function<void(Layer&)> before_forward = {};  // waits for the layer's parameters
  std::function<void(Layer&)> layer_done = {};      // the layer's weight gradients are complete
  MemoryMeter* meter = nullptr;                     // of a forward
  TraceTarget trace = {};
};

// One micro-batch's way through a chunk, forwards and backwards, instruction by instruction. What a
// backward needs is kept until it has used it; a slot's value until its last reader.
class ChunkRun {
 public:
  // Both outlive it.
  ChunkRun(Chunk& chunk, const MicroBatch& micro_batch);

  const ChunkProgram& program() const { return program_; }

  // The chunk's input: what the stage before sent, nothing where it begins with the embedding.
  void begin_forward(std::vector<Value> inputs, WalkSettings settings);
  // Gradients of the outputs; none where the chunk ends with losses, whose gradients the
  // micro-batch's record holds.
  void begin_backward(std::vector<at::Tensor> d_outputs, WalkSettings settings);
  // Of any instruction but kSend and kFill, in an order that schedule/instructions.h makes.
  void run(const Instruction& instruction);

  std::vector<Value> take_outputs();        // at a forward's kSend
  std::vector<at::Tensor> take_d_inputs();  // at a backward's
  WeightGradQueue& weight_grads() { return weight_grads_; }

  // Detached: the weighted sum of the layers' label losses, a scalar, or the log-probability of
  // each label where the record wants that; undefined where no layer has one.
  at::Tensor label_loss() const;
  // By layer: scalars, undefined without.
  const std::vector<at::Tensor>& aux_losses() const { return aux_losses_; }
  // The gradient of the labels' log-probabilities, where it is not known before the forward: of a
  // chunk with one such root.
  void set_d_label_loss(at::Tensor d);

 private:
  struct SlotState {
    Value value;
    int reads_left = 0;
    Value kept;  // what a recomputation reads
    int kept_reads_left = 0;
    std::vector<at::Tensor> grads;  // by reader; the next layer's last
    at::Tensor grad_scales;         // of the one gradient, if that is in 8 bits
  };
  struct NodeState {
    std::optional<SegmentRun> segment;
    std::vector<Slot> leaves, roots;  // of the segment, in the order of its input() and output()
  };
  struct LayerState {
    std::vector<SlotState> slots;
    std::vector<NodeState> nodes;
    std::shared_ptr<const DispatchPlan> plan;
    std::optional<Pending<Dispatched>> dispatching;
    std::optional<Pending<at::Tensor>> combining;
    std::optional<Pending<Value>> combining_back;
    std::optional<Pending<DispatchGrads>> dispatching_back;
  };
  class At;  // where an instruction is

  void hand_down(int layer);
  void begin_layer(const At& at);
  void end_layer(const At& at);
  void compute(const At& at);
  void add_up(const At& at);
  void start(const At& at);
  void finish(const At& at);
  void start_back(const At& at);
  void finish_back(const At& at);
  void input_grads(const At& at);
  void weight_grads(const At& at);

  Value read(const At& at, Slot slot);
  void write(const At& at, Slot slot, Value value);
  Value kept_of(const At& at, Slot slot, const Value& value, int reads_again) const;
  at::Tensor d_root(const At& at, Slot slot);
  at::Tensor take_grad(int layer, Slot slot);
  void add_grad(const At& at, Slot slot, at::Tensor d);

  LayerState& state(int layer) { return layers_[static_cast<size_t>(layer)]; }
  SlotState& slot_state(int layer, Slot slot) {
    return state(layer).slots[static_cast<size_t>(slot.index)];
  }
  std::vector<Value> outputs_of(int layer);

  Chunk& chunk_;
  const MicroBatch& micro_batch_;
  ChunkProgram program_;
  WalkSettings settings_;
  bool with_grad_ = false;  // of the forward
  std::vector<Value> inputs_;
  std::vector<at::Tensor> d_outputs_;
  std::vector<LayerState> layers_;
  WeightGradQueue weight_grads_;
  std::vector<at::Tensor> label_losses_, aux_losses_;  // by layer
  at::Tensor d_label_loss_;
};

}  // namespace moetron
