#include "moetron/pipeline/chunk.h"

#include <algorithm>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/measure/memory_meter.h"

namespace moetron {

ChunkProgram Chunk::program() const {
  std::vector<const LayerProgram*> programs;
  for (const auto& layer : layers) programs.push_back(&layer->program());
  return {std::move(programs), recompute};
}

// Where an instruction is, and what it is about.
class ChunkRun::At {
 public:
  At(ChunkRun& run, const Instruction& instruction)
      : layer(instruction.layer),
        index(instruction.node),
        pass(instruction.pass),
        code(*run.chunk_.layers[static_cast<size_t>(layer)]),
        program(run.program_.layer(layer)),
        node(program.node(index)),
        recompute(run.program_.recompute[static_cast<size_t>(layer)]),
        state(run.state(layer)),
        meter_(pass == Pass::kForward ? run.settings_.meter : nullptr),
        trace_(run.settings_.trace) {
    trace_.label.layer = layer;
  }

  SpanScope span(const char* name, bool waits = false) const { return {trace_, name, pass, waits}; }
  SpanScope span() const { return span(name_of(node.role)); }
  MemoryScope purpose() const {
    return {meter_, node.role == NodeRole::kSum ? "hidden states" : name_of(node.role)};
  }
  NodeState& node_state() const { return state.nodes[static_cast<size_t>(index)]; }

  int layer, index;
  Pass pass;
  Layer& code;
  const LayerProgram& program;
  const Node& node;
  const LayerRecompute& recompute;
  LayerState& state;

 private:
  MemoryMeter* meter_;
  TraceTarget trace_;
};

ChunkRun::ChunkRun(Chunk& chunk, const MicroBatch& micro_batch)
    : chunk_(chunk),
      micro_batch_(micro_batch),
      program_(chunk.program()),
      layers_(chunk.layers.size()),
      label_losses_(chunk.layers.size()),
      aux_losses_(chunk.layers.size()) {}

void ChunkRun::begin_forward(std::vector<Value> inputs, WalkSettings settings) {
  inputs_ = std::move(inputs);
  settings_ = std::move(settings);
  with_grad_ = settings_.with_grad;
}

void ChunkRun::begin_backward(std::vector<at::Tensor> d_outputs, WalkSettings settings) {
  d_outputs_ = std::move(d_outputs);
  settings_ = std::move(settings);
}

void ChunkRun::run(const Instruction& instruction) {
  const At at(*this, instruction);
  const bool is_back = at.pass == Pass::kInputGrad;
  switch (instruction.act) {
    case Instruction::Act::kBeginLayer:
      return begin_layer(at);
    case Instruction::Act::kEndLayer:
      return end_layer(at);
    case Instruction::Act::kStart:
      return is_back ? start_back(at) : start(at);
    case Instruction::Act::kFinish:
      return is_back ? finish_back(at) : finish(at);
    case Instruction::Act::kCompute:
      if (at.pass == Pass::kWeightGrad) return weight_grads(at);
      if (is_back) return input_grads(at);
      return at.node.role == NodeRole::kSum ? add_up(at) : compute(at);
    default:
      throw InternalError("an instruction that is no layer's");
  }
}

std::vector<Value> ChunkRun::outputs_of(int layer) {
  std::vector<Value> outputs;
  for (const Slot slot : program_.layer(layer).outputs()) {
    outputs.push_back(std::exchange(slot_state(layer, slot).value, {}));
  }
  return outputs;
}

std::vector<Value> ChunkRun::take_outputs() {
  if (layers_.empty()) return std::move(inputs_);
  return outputs_of(program_.num_layers() - 1);
}

std::vector<at::Tensor> ChunkRun::take_d_inputs() {
  if (layers_.empty()) return std::move(d_outputs_);
  std::vector<at::Tensor> d_inputs;
  for (const Slot slot : program_.layer(0).inputs()) d_inputs.push_back(take_grad(0, slot));
  return d_inputs;
}

// The gradients of a layer's inputs are those of the outputs of the layer before.
void ChunkRun::hand_down(int layer) {
  if (layer == 0 || state(layer).slots.empty()) return;  // the layer has ended
  const std::vector<Slot>&from = program_.layer(layer).inputs(),
        &to = program_.layer(layer - 1).outputs();
  for (size_t i = 0; i < from.size(); ++i) {
    at::Tensor d = take_grad(layer, from[i]);
    if (d.defined()) slot_state(layer - 1, to[i]).grads.back() = std::move(d);
  }
}

void ChunkRun::begin_layer(const At& at) {
  if (at.pass == Pass::kInputGrad) {
    if (at.layer + 1 < program_.num_layers()) return hand_down(at.layer + 1);
    for (size_t i = 0; i < d_outputs_.size(); ++i) {
      slot_state(at.layer, at.program.outputs().at(i)).grads.back() = std::move(d_outputs_[i]);
    }
    return;
  }
  if (at.pass == Pass::kForward) {
    if (settings_.before_forward) settings_.before_forward(at.code);
    at.state.slots.resize(static_cast<size_t>(at.program.num_slots()));
    at.state.nodes.resize(static_cast<size_t>(at.program.num_nodes()));
    for (int i = 0; i < at.program.num_slots(); ++i) {
      at.state.slots[static_cast<size_t>(i)].grads.resize(at.program.readers({i}).size() + 1);
    }
  } else if (!at.recompute.input_comes_again(at.layer)) {
    return;  // it was kept
  }
  std::vector<Value> inputs = at.layer == 0 ? std::move(inputs_) : outputs_of(at.layer - 1);
  if (at.layer > 0 && !with_grad_) state(at.layer - 1) = {};
  const std::vector<Slot>& slots = at.program.inputs();
  MT_CHECK(slots.empty() || inputs.size() == slots.size(), "layer ", at.layer, " of a chunk reads ",
           slots.size(), " values and is given ", inputs.size());
  for (size_t i = 0; i < slots.size(); ++i) write(at, slots[i], std::move(inputs[i]));
}

void ChunkRun::end_layer(const At& at) {
  Layer& layer = at.code;
  hand_down(at.layer);
  at.state = {};
  if (!settings_.defers_weights && settings_.layer_done) settings_.layer_done(layer);
}

// What a recomputation needs of a value of the first forward: what it reads and does not make
// again.
Value ChunkRun::kept_of(const At& at, Slot slot, const Value& value, int reads_again) const {
  if (!with_grad_ || at.recompute.nodes == 0) return {};
  const int writer = at.program.writer(slot);
  const bool is_input = writer == LayerProgram::kLayerInput;
  const bool comes_again =
      is_input ? at.recompute.input_comes_again(at.layer) : at.recompute.runs_again(writer);
  if (!comes_again) return reads_again > 0 ? value : Value{};
  if (at.program.type(slot) != SlotType::kRouting) return {};
  Value choices = value;  // are never made again
  choices.data.reset();   // comes to the same bits, with a graph
  return choices;
}

void ChunkRun::write(const At& at, Slot slot, Value value) {
  SlotState& state = slot_state(at.layer, slot);
  const std::vector<int>& readers = at.program.readers(slot);
  const auto reads_again = static_cast<int>(std::count_if(
      readers.begin(), readers.end(), [&](int reader) { return at.recompute.runs_again(reader); }));
  const std::vector<Slot>& outputs = at.program.outputs();
  const bool leaves = std::find(outputs.begin(), outputs.end(), slot) != outputs.end();
  const int leaving = leaves ? 1 : 0;  // outputs_of() is its last reader
  if (at.pass == Pass::kAgain) {
    state.reads_left = reads_again + leaving;
  } else {
    state.reads_left = static_cast<int>(readers.size()) + leaving;
    state.kept = kept_of(at, slot, value, reads_again);
    state.kept_reads_left = reads_again;
  }
  if (state.reads_left > 0) state.value = std::move(value);
}

Value ChunkRun::read(const At& at, Slot slot) {
  SlotState& state = slot_state(at.layer, slot);
  if (at.pass == Pass::kAgain && state.kept.data.defined()) {
    if (--state.kept_reads_left > 0) return state.kept;
    return std::exchange(state.kept, {});
  }
  if (--state.reads_left > 0) return state.value;
  return std::exchange(state.value, {});
}

void ChunkRun::compute(const At& at) {
  const SpanScope span = at.span();
  const MemoryScope purpose = at.purpose();
  const bool again = at.pass == Pass::kAgain;
  const bool with_grad = again || (with_grad_ && !at.recompute.runs_again(at.index));
  const at::AutoGradMode grad_mode(with_grad);
  NodeState& state = at.node_state();
  SegmentRun& segment = state.segment.emplace(with_grad, chunk_.operators);
  state.leaves.clear();
  state.roots.clear();
  std::vector<Value> inputs;
  for (const Slot slot : at.node.inputs) {
    Value& value = inputs.emplace_back(read(at, slot));
    if (!value.data.defined()) continue;
    value.data = segment.input(value.data);
    state.leaves.push_back(slot);
  }
  std::optional<Routing> earlier;
  for (const Slot slot : at.node.outputs) {
    if (again && at.program.type(slot) == SlotType::kRouting) {
      earlier = slot_state(at.layer, slot).kept.routing();
    }
  }
  std::vector<Value> outputs = at.code.compute(
      at.node, std::move(inputs), {micro_batch_, earlier ? &*earlier : nullptr, segment});
  MT_CHECK(outputs.size() == at.node.outputs.size(), name_of(at.node.role), " gave ",
           outputs.size(), " values instead of ", at.node.outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    const Slot slot = at.node.outputs[i];
    if (outputs[i].data.defined()) {
      outputs[i].data = segment.output(outputs[i].data);
      state.roots.push_back(slot);
    }
    if (at.program.type(slot) == SlotType::kLabelLoss) {
      label_losses_[static_cast<size_t>(at.layer)] = std::move(outputs[i].data);
    } else if (at.program.type(slot) == SlotType::kAuxLoss) {
      aux_losses_[static_cast<size_t>(at.layer)] = std::move(outputs[i].data);
    } else {
      write(at, slot, std::move(outputs[i]));
    }
  }
}

void ChunkRun::add_up(const At& at) {
  const SpanScope span = at.span();
  const MemoryScope purpose = at.purpose();
  const at::NoGradGuard no_grad;
  const std::vector<Slot>& inputs = at.node.inputs;
  at::Tensor sum = read(at, inputs[0]).data.add(read(at, inputs[1]).data);
  for (size_t i = 2; i < inputs.size(); ++i) sum.add_(read(at, inputs[i]).data);
  write(at, at.node.outputs[0], {.data = std::move(sum), .scales = {}, .layout = {}});
}

void ChunkRun::start(const At& at) {
  const bool dispatches = at.node.role == NodeRole::kDispatch;
  const SpanScope span = at.span(dispatches ? "start dispatch" : "start combine");
  const MemoryScope purpose = at.purpose();
  const at::NoGradGuard no_grad;
  Dispatcher& dispatcher = *at.code.dispatcher();
  Value moved = read(at, at.node.inputs[0]);
  if (dispatches) {
    const Routing routing = read(at, at.node.inputs[1]).routing();
    at.state.dispatching = dispatcher.start_dispatch(moved, routing);
    return;
  }
  MT_CHECK(!moved.scales.defined(), "rows to be summed have scales");
  at.state.combining = dispatcher.start_combine(std::move(moved.data), at.state.plan);
  // The backward reads it, unless the tokens are dispatched again by then.
  const bool is_last = at.pass == Pass::kForward && at.recompute.runs_again(0);
  if (!with_grad_ || is_last) at.state.plan.reset();
}

void ChunkRun::finish(const At& at) {
  const SpanScope span = at.span(name_of(at.node.role), /*waits=*/true);
  const MemoryScope purpose = at.purpose();
  const at::NoGradGuard no_grad;
  if (at.node.role == NodeRole::kDispatch) {
    Dispatched dispatched = std::exchange(at.state.dispatching, std::nullopt)->finish();
    at.state.plan = std::move(dispatched.plan);
    write(at, at.node.outputs[0], std::move(dispatched.rows));
    write(at, at.node.outputs[1], {std::move(dispatched.probabilities), {}, {}});
    return;
  }
  Value combined;
  combined.data = std::exchange(at.state.combining, std::nullopt)->finish();
  write(at, at.node.outputs[0], std::move(combined));
}

void ChunkRun::start_back(const At& at) {
  const bool dispatches = at.node.role == NodeRole::kDispatch;
  const SpanScope span = at.span(dispatches ? "start dispatch" : "start combine");
  const at::NoGradGuard no_grad;
  Dispatcher& dispatcher = *at.code.dispatcher();
  at::Tensor d = take_grad(at.layer, at.node.outputs[0]);
  if (dispatches) {
    const at::Tensor d_weights = take_grad(at.layer, at.node.outputs[1]);
    at.state.dispatching_back = dispatcher.start_dispatch_backward(d, d_weights, at.state.plan);
  } else {
    at.state.combining_back =
        dispatcher.start_combine_backward(at.code.combine_grad(std::move(d)), at.state.plan);
  }
}

void ChunkRun::finish_back(const At& at) {
  const SpanScope span = at.span(name_of(at.node.role), /*waits=*/true);
  const at::NoGradGuard no_grad;
  if (at.node.role == NodeRole::kCombine) {
    Value d_rows = std::exchange(at.state.combining_back, std::nullopt)->finish();
    slot_state(at.layer, at.node.inputs[0]).grad_scales = std::move(d_rows.scales);
    return add_grad(at, at.node.inputs[0], std::move(d_rows.data));
  }
  DispatchGrads grads = std::exchange(at.state.dispatching_back, std::nullopt)->finish();
  at.state.plan.reset();
  add_grad(at, at.node.inputs[0], std::move(grads.d_hidden));
  add_grad(at, at.node.inputs[1], std::move(grads.d_probabilities));
}

at::Tensor ChunkRun::label_loss() const {
  at::Tensor sum;
  for (size_t i = 0; i < label_losses_.size(); ++i) {
    if (!label_losses_[i].defined()) continue;
    const double weight = chunk_.layers[i]->loss_weight();
    const at::Tensor part = weight == 1 ? label_losses_[i] : label_losses_[i] * weight;
    sum = sum.defined() ? sum + part : part;
  }
  return sum;
}

void ChunkRun::set_d_label_loss(at::Tensor d) {
  const auto count = std::count_if(label_losses_.begin(), label_losses_.end(),
                                   [](const at::Tensor& loss) { return loss.defined(); });
  MT_CHECK(count == 1, "one gradient for ", count, " label losses");
  d_label_loss_ = std::move(d);
}

at::Tensor ChunkRun::d_root(const At& at, Slot slot) {
  const auto layer = static_cast<size_t>(at.layer);
  switch (at.program.type(slot)) {
    case SlotType::kLabelLoss:
      if (d_label_loss_.defined()) return std::exchange(d_label_loss_, {});
      return at::full_like(label_losses_[layer], micro_batch_.d_loss * at.code.loss_weight());
    case SlotType::kAuxLoss:
      return at::full_like(aux_losses_[layer], micro_batch_.d_aux);
    default:
      return take_grad(at.layer, slot);
  }
}

void ChunkRun::input_grads(const At& at) {
  const at::NoGradGuard no_grad;
  if (at.node.role == NodeRole::kSum) {
    const at::Tensor d = take_grad(at.layer, at.node.outputs[0]);
    for (const Slot slot : at.node.inputs) add_grad(at, slot, d);
    return;
  }
  const SpanScope span = at.span();
  NodeState& state = at.node_state();
  std::vector<at::Tensor> d_inputs;
  {
    std::vector<at::Tensor> d_outputs, scales;
    for (const Slot slot : state.roots) {
      d_outputs.push_back(d_root(at, slot));
      scales.push_back(std::exchange(slot_state(at.layer, slot).grad_scales, {}));
    }
    d_inputs = state.segment->backward(d_outputs, scales);
  }
  for (size_t i = 0; i < d_inputs.size(); ++i) {
    add_grad(at, state.leaves[i], std::move(d_inputs[i]));
  }
  if (!settings_.defers_weights) return;
  state.segment->weight_grads().move_to(weight_grads_);
  state.segment.reset();
}

void ChunkRun::weight_grads(const At& at) {
  const SpanScope span = at.span();
  NodeState& state = at.node_state();
  state.segment->weight_grads().run();
  state.segment.reset();
}

void ChunkRun::add_grad(const At& at, Slot slot, at::Tensor d) {
  const std::vector<int>& readers = at.program.readers(slot);
  const auto place = std::find(readers.begin(), readers.end(), at.index) - readers.begin();
  slot_state(at.layer, slot).grads[static_cast<size_t>(place)] = std::move(d);
}

// The sum over the readers, in their order.
at::Tensor ChunkRun::take_grad(int layer, Slot slot) {
  at::Tensor sum;
  for (at::Tensor& part : slot_state(layer, slot).grads) {
    if (!part.defined()) continue;
    at::Tensor d = std::exchange(part, {});
    sum = sum.defined() ? sum + d : std::move(d);
  }
  return sum;
}

}  // namespace moetron
