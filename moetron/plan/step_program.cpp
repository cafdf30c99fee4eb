#include "moetron/plan/step_program.h"

#include <algorithm>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/schedule/instructions.h"

namespace moetron {
namespace {

using Act = Instruction::Act;
using Index = std::optional<size_t>;  // of a stream's operation; none: nothing to wait for

// A chunk whose layers' programs stand for what its times are of.
struct TimedChunk {
  TimedChunk(const ChunkTimes& made, const RecomputeSettings& recompute) : times(made) {
    std::vector<const LayerProgram*> programs;
    if (made.embedding.forward > 0) programs.push_back(&embedding_program());
    first_decoder = static_cast<int>(programs.size());
    for (const LayerTimes& layer : made.layers) programs.push_back(&program_of(layer));
    if (made.head.forward > 0) programs.push_back(&head_program());
    program = ChunkProgram(std::move(programs), recompute);
  }

  PartTimes part(const Instruction& instruction) const {
    const NodeRole role = program.layer(instruction.layer).node(instruction.node).role;
    if (role == NodeRole::kEmbedding) return times.embedding;
    if (role == NodeRole::kHead) return times.head;
    const LayerTimes& layer = layer_times(instruction.layer);
    switch (role) {
      case NodeRole::kAttention:
        return layer.attention;
      case NodeRole::kExperts:
      case NodeRole::kMlp:
        return layer.experts;
      case NodeRole::kSharedExpert:
        return layer.shared;
      default:
        return {};  // a sum, whose time is attention's and the experts'
    }
  }
  const LayerTimes& layer_times(int layer) const {
    return times.layers[static_cast<size_t>(layer - first_decoder)];
  }

  const ChunkTimes& times;
  int first_decoder = 0;
  ChunkProgram program;
};

double seconds_of(const PartTimes& part, Pass pass) {
  switch (pass) {
    case Pass::kForward:
    case Pass::kAgain:
      return part.forward;
    case Pass::kInputGrad:
      return part.backward_input;
    case Pass::kWeightGrad:
      return part.backward_weight;
  }
  throw InternalError("a pass without a time");
}

// Weight gradients that may fill the waits of another action, in their order.
std::vector<double> weight_gradients(const TimedChunk& chunk, Part part) {
  std::vector<double> pieces;
  for (const Instruction& instruction :
       backward_instructions(chunk.program, /*with_weights=*/true, /*fills=*/false)) {
    if (instruction.act != Act::kCompute || instruction.pass != Pass::kWeightGrad) continue;
    pieces.push_back(chunk.part(instruction).backward_weight * (part == Part::kWhole ? 1 : 0.5));
  }
  std::erase(pieces, 0.0);  // they would fill nothing
  return pieces;
}

// Puts a step's list on two streams: computations one after the other, and beside them what
// travels.
class Program {
 public:
  // `serial`: every operation waits for the one before.
  Program(const ProgramSettings& settings, bool serial) : settings_(settings), serial_(serial) {}

  void fill_with(std::vector<double> pieces) { fillers_ = std::move(pieces); }

  // Of a step whose actions are of these chunks.
  void add(const InstructionList& list, const std::optional<TimedChunk>& forward,
           const std::optional<TimedChunk>& backward) {
    waits_left_ = static_cast<size_t>(std::count_if(
        list.begin(), list.end(), [](const Instruction& o) { return o.act == Act::kFill; }));
    for (const Instruction& instruction : list) {
      add(instruction, instruction.of_backward ? *backward : *forward);
    }
  }

  // With the sending times of the F and of the I or B that the program holds.
  struct Result {
    StreamTimes times;
    double forward_sent = 0;
    double backward_sent = 0;
  };
  Result run() {
    fill(fillers_.size() - next_filler_);
    Result result{run_streams(operations_, settings_.compute_rate)};
    if (forward_sent_) result.forward_sent = result.times.ends[*forward_sent_];
    if (backward_sent_) result.backward_sent = result.times.ends[*backward_sent_];
    return result;
  }

 private:
  void add(const Instruction& instruction, const TimedChunk& chunk) {
    const bool is_back = instruction.pass == Pass::kInputGrad;
    switch (instruction.act) {
      case Act::kCompute:
        return compute(seconds_of(chunk.part(instruction), instruction.pass));
      case Act::kStart: {
        Index& under_way = under_way_[instruction.of_backward][is_back];
        under_way = push(true, chunk.layer_times(instruction.layer).dispatch);
        return;
      }
      case Act::kFinish:
        awaited_.push_back(*under_way_[instruction.of_backward][is_back]);
        return;
      case Act::kFill: {
        const size_t share = share_of_wait(fillers_.size() - next_filler_, waits_left_--);
        return fill(share);
      }
      case Act::kSend:
        (instruction.of_backward ? backward_sent_ : forward_sent_) = last_compute_;
        return;
      case Act::kBeginLayer:
      case Act::kEndLayer:
        return;
    }
  }

  // What computes waits for what is awaited; what travels begins behind what was computed.
  size_t push(bool communicates, double seconds) {
    StreamOperation operation{communicates, seconds, {}};
    if (!communicates) operation.after = std::exchange(awaited_, {});
    if (communicates && last_compute_) operation.after.push_back(*last_compute_);
    if (serial_ && !operations_.empty()) operation.after.push_back(operations_.size() - 1);
    operations_.push_back(std::move(operation));
    return operations_.size() - 1;
  }
  void compute(double seconds) { last_compute_ = push(false, seconds); }

  void fill(size_t count) {
    for (; count > 0; --count) compute(fillers_[next_filler_++]);
  }

  const ProgramSettings& settings_;
  bool serial_;
  std::vector<StreamOperation> operations_;
  std::vector<double> fillers_;
  size_t next_filler_ = 0, waits_left_ = 0;
  Index under_way_[2][2];  // by micro-batch (F's, B's) and direction
  std::vector<size_t> awaited_;
  Index last_compute_, forward_sent_, backward_sent_;
};

}  // namespace

const LayerProgram& program_of(const LayerTimes& layer) {
  return layer.has_experts ? sparse_layer_program(layer.shared.forward > 0) : dense_layer_program();
}

StepCost step_cost(const Step& step, const ChunkTimes& action_times, const ChunkTimes& beside_times,
                   const ProgramSettings& settings) {
  if (step.action.kind == ActionKind::kReduce) return {action_times.reduce};
  const StepActions actions = sorted_actions(step);
  std::optional<TimedChunk> forward, backward, weights;
  const auto open = [&](std::optional<TimedChunk>& chunk, const std::optional<Action>& action) {
    if (!action) return;
    chunk.emplace(*action == step.action ? action_times : beside_times, settings.recompute);
  };
  open(forward, actions.forward);
  open(backward, actions.backward);
  open(weights, actions.weights);
  const bool is_lone = !step.beside || actions.reduce;
  Program program(settings, is_lone && settings.lone_steps_wait);
  if (weights) program.fill_with(weight_gradients(*weights, actions.weights->part));
  const auto program_of = [](const auto& chunk) { return chunk ? &chunk->program : nullptr; };
  program.add(step_instructions(step, program_of(forward), program_of(backward)), forward,
              backward);
  const Program::Result result = program.run();

  const auto sent = [&](const std::optional<Action>& action) {
    if (!action) return 0.0;
    return action == actions.backward ? result.backward_sent : result.forward_sent;
  };
  StepCost cost{result.times.duration, sent(step.action), sent(step.beside),
                result.times.communication, result.times.exposed};
  if (actions.reduce) {
    // The gradients of every layer but the last are reduced beside the others.
    const auto layers = static_cast<double>(std::max<size_t>(1, beside_times.layers.size()));
    const double with_reduction =
        std::max(cost.duration, beside_times.reduce) + beside_times.reduce / layers;
    cost.reduced = with_reduction - cost.duration;
    cost.duration = with_reduction;
  }
  return cost;
}

}  // namespace moetron
