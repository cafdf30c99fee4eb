#include "moetron/schedule/instructions.h"

#include <cstdint>
#include <initializer_list>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Act = Instruction::Act;

// Writes the instructions of one micro-batch's way through a chunk, a stretch at a time.
class Way {
 public:
  Way(const ChunkProgram& chunk, bool of_backward, InstructionList& out)
      : chunk_(chunk), of_backward_(of_backward), out_(out) {}

  int num_layers() const { return chunk_.num_layers(); }
  const LayerProgram& program(int layer) const { return chunk_.layer(layer); }
  bool is_cut(int layer) const {
    return layer >= 0 && layer < num_layers() && program(layer).is_cut();
  }

  void write(Act act, Pass pass, int layer = 0, int node = 0) {
    out_.push_back({act, pass, of_backward_, layer, node});
  }

  // The nodes of a stretch, forwards; under kAgain those that run again.
  void forward_stretch(int layer, Stretch stretch, Pass pass = Pass::kForward) {
    for (int node = 0; node < program(layer).num_nodes(); ++node) {
      const Node& what = program(layer).node(node);
      if (what.stretch != stretch) continue;
      if (pass == Pass::kAgain && !recompute(layer).runs_again(node)) continue;
      for (const Slot slot : what.inputs) finish(layer, program(layer).writer(slot), pass);
      start_or_compute(layer, node, pass);
    }
  }

  void start_backward() { done_back_ = 0; }

  // Input gradients of a stretch, backwards; what travelled to it is begun to travel back.
  void backward_stretch(int layer, Stretch stretch) {
    const LayerProgram& nodes = program(layer);
    for (int node = nodes.num_nodes(); node-- > 0;) {
      const Node& what = nodes.node(node);
      if (what.stretch != stretch || communicates(what.role)) continue;
      for (const Slot slot : what.outputs) {
        for (const int reader : nodes.readers(slot)) finish(layer, reader, Pass::kInputGrad);
      }
      write(Act::kCompute, Pass::kInputGrad, layer, node);
      done_back_ |= bit(node);
      for (const Slot slot : what.inputs) start_back(layer, nodes.writer(slot));
    }
  }

  void weights(int layer, std::initializer_list<Stretch> stretches) {
    for (const Stretch stretch : stretches) {
      for (int node = 0; node < program(layer).num_nodes(); ++node) {
        const Node& what = program(layer).node(node);
        if (what.stretch != stretch || !is_compute(what.role)) continue;
        write(Act::kCompute, Pass::kWeightGrad, layer, node);
      }
    }
  }

  const LayerRecompute& recompute(int layer) const {
    return chunk_.recompute[static_cast<size_t>(layer)];
  }

 private:
  static uint32_t bit(int node) { return uint32_t{1} << node; }

  void start_or_compute(int layer, int node, Pass pass) {
    const bool starts = communicates(program(layer).node(node).role);
    if (starts) under_way_[kForwards] |= bit(node);
    write(starts ? Act::kStart : Act::kCompute, pass, layer, node);
  }

  // The gradients of all that a node brought are ready: they may leave.
  void start_back(int layer, int node) {
    if (node < 0 || !communicates(program(layer).node(node).role)) return;
    for (const Slot slot : program(layer).node(node).outputs) {
      for (const int reader : program(layer).readers(slot)) {
        if ((done_back_ & bit(reader)) == 0) return;
      }
    }
    if ((under_way_[kBackwards] & bit(node)) != 0) return;  // begun for another of its slots
    under_way_[kBackwards] |= bit(node);
    write(Act::kStart, Pass::kInputGrad, layer, node);
  }

  // Waits for a node, if it is under way.
  void finish(int layer, int node, Pass pass) {
    if (node < 0) return;
    uint32_t& under_way = under_way_[pass == Pass::kInputGrad ? kBackwards : kForwards];
    if ((under_way & bit(node)) == 0) return;
    under_way &= ~bit(node);
    done_back_ |= pass == Pass::kInputGrad ? bit(node) : 0;
    write(Act::kFinish, pass, layer, node);
  }

  enum Direction { kForwards, kBackwards };
  const ChunkProgram& chunk_;
  bool of_backward_;
  InstructionList& out_;
  uint32_t under_way_[2] = {};  // nodes of the current layer, by Direction
  uint32_t done_back_ = 0;      // whose input gradients are there
};

// A forward, layer by layer. The stretches of a layer come in this order, each once.
class ForwardWay : Way {
 public:
  ForwardWay(const ChunkProgram& chunk, InstructionList& out) : Way(chunk, false, out) {}

  bool done() const { return layer_ == num_layers(); }
  bool at_cut() const { return is_cut(layer_); }
  bool next_is_cut() const { return is_cut(layer_ + 1); }

  void begin() {
    write(Act::kBeginLayer, Pass::kForward, layer_);
    forward_stretch(layer_, Stretch::kBegin);
  }
  void beside() { forward_stretch(layer_, Stretch::kBeside); }
  void middle() { forward_stretch(layer_, Stretch::kMiddle); }
  void end() { forward_stretch(layer_++, Stretch::kEnd); }
  void whole_layer(bool fills = false) {
    fills = fills && program(layer_).has_experts();
    begin();
    if (fills) write(Act::kFill, Pass::kForward, layer_);
    beside();
    middle();
    if (fills) write(Act::kFill, Pass::kForward, layer_);
    end();
  }
  void send() { write(Act::kSend, Pass::kForward); }

 private:
  int layer_ = 0;
};

// A backward, from the last layer to the first.
class BackwardWay : Way {
 public:
  BackwardWay(const ChunkProgram& chunk, bool with_weights, InstructionList& out)
      : Way(chunk, true, out), with_weights_(with_weights), left_(num_layers()) {}

  bool done() const { return left_ == 0; }  // but for the last end_weights()
  bool at_cut() const { return is_cut(left_ - 1); }

  void begin() {
    const int layer = left_ - 1;
    run_group_again(layer);
    start_backward();
    write(Act::kBeginLayer, Pass::kInputGrad, layer);
    // Up to what travels; the rest runs beside what travels back.
    if (runs_partly_again(layer)) forward_stretch(layer, Stretch::kBegin, Pass::kAgain);
    backward_stretch(layer, Stretch::kEnd);
  }
  void middle() {
    const int layer = left_ - 1;
    if (runs_partly_again(layer)) {
      forward_stretch(layer, Stretch::kBeside, Pass::kAgain);
      forward_stretch(layer, Stretch::kMiddle, Pass::kAgain);
    }
    backward_stretch(layer, Stretch::kBeside);
    backward_stretch(layer, Stretch::kMiddle);
  }
  void middle_weights() {
    if (with_weights_) weights(left_ - 1, {Stretch::kEnd, Stretch::kBeside, Stretch::kMiddle});
  }
  // The layer before becomes the current one.
  void end() { backward_stretch(--left_, Stretch::kBegin); }
  // Of the layer of the last end(); the next may have begun.
  void end_weights() {
    if (with_weights_) weights(left_, {Stretch::kBegin});
    write(Act::kEndLayer, Pass::kInputGrad, left_);
  }

  void whole_layer(bool fills = false) {
    fills = fills && program(left_ - 1).has_experts();
    begin();
    if (fills) write(Act::kFill, Pass::kInputGrad, left_ - 1);
    middle();
    if (fills) write(Act::kFill, Pass::kInputGrad, left_ - 1);
    middle_weights();
    end();
    send_if_done();
    end_weights();
  }
  void send_if_done() {
    if (!done() || std::exchange(is_sent_, true)) return;
    write(Act::kSend, Pass::kInputGrad);
  }

 private:
  bool runs_partly_again(int layer) const {
    return recompute(layer).nodes != 0 && !recompute(layer).runs_again(0);
  }

  // Where whole layers run again, up to this one.
  void run_group_again(int last) {
    const LayerRecompute& group = recompute(last);
    if (group.nodes == 0 || last != group.last || runs_partly_again(last)) return;
    for (int layer = group.first; layer <= last; ++layer) {
      write(Act::kBeginLayer, Pass::kAgain, layer);
      for (const Stretch stretch : kStretches) forward_stretch(layer, stretch, Pass::kAgain);
    }
  }

  bool with_weights_;
  int left_;  // layers before and with the current one
  bool is_sent_ = false;
};

const char* pass_name(Pass pass) {
  switch (pass) {
    case Pass::kForward:
      return "F";
    case Pass::kAgain:
      return "again ";
    case Pass::kInputGrad:
      return "I";
    case Pass::kWeightGrad:
      return "W";
  }
  throw InternalError("a pass without a name");
}

}  // namespace

std::string describe(const Instruction& instruction, const ChunkProgram& chunk) {
  const auto text = [&](const char* before, const char* what) {
    return concat(before, what, " ", pass_name(instruction.pass), instruction.layer);
  };
  const auto node = [&] {
    return name_of(chunk.layer(instruction.layer).node(instruction.node).role);
  };
  switch (instruction.act) {
    case Act::kBeginLayer:
      return text("begin", "");
    case Act::kCompute:
      return text("", node());
    case Act::kStart:
      return text("start ", node());
    case Act::kFinish:
      return text("wait for ", node());
    case Act::kEndLayer:
      return text("end", "");
    case Act::kSend:
      return concat("send ", pass_name(instruction.pass));
    case Act::kFill:
      return text("fill", "");
  }
  throw InternalError("an instruction without a name");
}

InstructionList forward_instructions(const ChunkProgram& chunk, bool fills) {
  InstructionList list;
  ForwardWay forward(chunk, list);
  while (!forward.done()) forward.whole_layer(fills);
  forward.send();
  return list;
}

InstructionList backward_instructions(const ChunkProgram& chunk, bool with_weights, bool fills) {
  InstructionList list;
  BackwardWay backward(chunk, with_weights, list);
  while (!backward.done()) backward.whole_layer(fills);
  backward.send_if_done();  // of no layers
  return list;
}

InstructionList block_instructions(const ChunkProgram& forward_chunk,
                                   const ChunkProgram& backward_chunk, bool with_weights) {
  InstructionList list;
  ForwardWay forward(forward_chunk, list);
  BackwardWay backward(backward_chunk, with_weights, list);
  bool is_sent = false;
  const auto send = [&] {
    if (forward.done() && !std::exchange(is_sent, true)) forward.send();
    backward.send_if_done();
  };
  // The ends of the model have no communication to hide or to be hidden.
  while (!forward.done() && !forward.at_cut()) forward.whole_layer();
  while (!backward.done() && !backward.at_cut()) backward.whole_layer();
  bool is_begun = false;
  while (forward.at_cut() && backward.at_cut()) {
    if (!is_begun) backward.begin();
    forward.begin();
    backward.middle();
    backward.middle_weights();
    forward.beside();
    forward.middle();
    backward.end();
    is_begun = forward.next_is_cut() && backward.at_cut();
    if (is_begun) {
      backward.begin();
      backward.end_weights();
      forward.end();
    } else {
      forward.end();
      send();
      backward.end_weights();
    }
  }
  while (!forward.done()) forward.whole_layer();
  send();
  while (!backward.done()) backward.whole_layer();
  send();
  return list;
}

InstructionList step_instructions(const Step& step, const ChunkProgram* forward,
                                  const ChunkProgram* backward) {
  const StepActions actions = sorted_actions(step);
  const bool with_weights = actions.backward && actions.backward->kind == ActionKind::kBackward;
  if (actions.forward && actions.backward) {
    return block_instructions(*forward, *backward, with_weights);
  }
  const bool fills = actions.weights.has_value();
  if (actions.forward) return forward_instructions(*forward, fills);
  if (actions.backward) return backward_instructions(*backward, with_weights, fills);
  return {};
}

size_t share_of_wait(size_t left, size_t waits) {
  return waits == 0 ? left : (left + waits - 1) / waits;
}

}  // namespace moetron
