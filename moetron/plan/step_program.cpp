#include "moetron/plan/step_program.h"

#include <algorithm>
#include <optional>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using Index = std::optional<size_t>;  // of an operation; none: nothing to wait for

// Weight gradients that may fill the waits of another action, in their order.
std::vector<double> weight_gradients(const ChunkTimes& chunk, Part part) {
  std::vector<double> pieces{chunk.head.backward_weight};
  for (auto layer = chunk.layers.rbegin(); layer != chunk.layers.rend(); ++layer) {
    pieces.push_back(layer->shared.backward_weight + layer->experts.backward_weight);
    pieces.push_back(layer->attention.backward_weight);
  }
  pieces.push_back(chunk.embedding.backward_weight);
  std::erase(pieces, 0.0);  // they would fill nothing
  for (double& piece : pieces) piece *= part == Part::kWhole ? 1 : 0.5;
  return pieces;
}

double seconds_of(const std::vector<double>& pieces) {
  double sum = 0;
  for (const double piece : pieces) sum += piece;
  return sum;
}

// What may run beside communication.
enum class Beside { kNothing, kSharedExpert, kAll };

class Program {
 public:
  Program(const ProgramSettings& settings, Beside beside) : settings_(settings), beside_(beside) {}

  void fill_with(std::vector<double> pieces) { fillers_ = std::move(pieces); }

  void forward(const ChunkTimes& chunk) {
    begin_forward(chunk);
    for (const LayerTimes& layer : chunk.layers) forward_layer(layer);
    end_forward(chunk);
  }

  void backward(const ChunkTimes& chunk, bool with_weights) {
    begin_backward(chunk, with_weights);
    for (size_t i = chunk.layers.size(); i-- > 0;) backward_layer(chunk.layers[i], with_weights);
    end_backward(chunk, with_weights);
  }

  void block(const ChunkTimes& forward, const ChunkTimes& backward) {
    begin_backward(backward, /*with_weights=*/true);
    begin_forward(forward);
    const size_t shared = std::min(forward.layers.size(), backward.layers.size());
    const size_t last = backward.layers.size() - 1;
    for (size_t i = 0; i < shared; ++i) layer_pair(forward.layers[i], backward.layers[last - i]);
    for (size_t i = shared; i < forward.layers.size(); ++i) forward_layer(forward.layers[i]);
    for (size_t i = shared; i < backward.layers.size(); ++i)
      backward_layer(backward.layers[last - i], /*with_weights=*/true);
    end_forward(forward);
    end_backward(backward, /*with_weights=*/true);
  }

  // With the sending times of the F and of the I or B that the program holds.
  struct Result {
    StreamTimes times;
    double forward_sent = 0;
    double backward_sent = 0;
  };
  Result run() {
    for (; next_filler_ < fillers_.size(); ++next_filler_) compute(fillers_[next_filler_], {});
    Result result{run_streams(operations_, settings_.compute_rate)};
    if (forward_) result.forward_sent = result.times.ends[*forward_];
    if (backward_) result.backward_sent = result.times.ends[*backward_];
    return result;
  }

 private:
  size_t add(bool communicates, double seconds, Index after) {
    StreamOperation operation{communicates, seconds, {}};
    if (after) operation.after.push_back(*after);
    const bool is_serial =
        beside_ == Beside::kNothing || (communicates && beside_ == Beside::kSharedExpert);
    if (is_serial && !operations_.empty()) operation.after.push_back(operations_.size() - 1);
    operations_.push_back(std::move(operation));
    return operations_.size() - 1;
  }
  size_t compute(double seconds, Index after) { return add(false, seconds, after); }
  size_t communicate(double seconds, Index after) { return add(true, seconds, after); }

  // While something travels.
  void fill() {
    if (next_filler_ < fillers_.size()) compute(fillers_[next_filler_++], {});
  }

  // A dispatch or combine, and beside it the shared expert.
  size_t travel(double seconds, double shared, Index after) {
    const size_t end = communicate(seconds, after);
    if (shared > 0) compute(shared, after);
    return end;
  }

  void begin_forward(const ChunkTimes& chunk) {
    if (chunk.embedding.forward > 0) forward_ = compute(chunk.embedding.forward, forward_);
  }
  void end_forward(const ChunkTimes& chunk) {
    if (chunk.head.forward > 0) forward_ = compute(chunk.head.forward, forward_);
  }

  void forward_layer(const LayerTimes& layer) {
    const size_t attention = compute(layer.attention.forward, forward_);
    const size_t dispatch = travel(layer.dispatch, layer.shared.forward, attention);
    fill();
    const size_t experts = compute(layer.experts.forward, dispatch);
    forward_ = communicate(layer.dispatch, experts);
    fill();
  }

  void begin_backward(const ChunkTimes& chunk, bool with_weights) {
    if (chunk.head.forward > 0) backward_ = compute(chunk.head.backward_input, backward_);
    if (with_weights) compute(chunk.head.backward_weight, {});
  }
  void end_backward(const ChunkTimes& chunk, bool with_weights) {
    if (with_weights) compute(chunk.embedding.backward_weight, {});
  }

  // What must be computed again before the experts' backward; the last operation of it.
  Index compute_again(const LayerTimes& layer) {
    if (settings_.recompute == Recompute::kNothing) return backward_;
    if (settings_.recompute == Recompute::kExpertProduct)
      // The first of two products, twice as wide as the second.
      return compute(2.0 / 3 * layer.experts.forward, backward_);
    Index before = backward_;
    if (settings_.recompute == Recompute::kLayer) before = compute(layer.attention.forward, before);
    const size_t dispatch = travel(layer.dispatch, layer.shared.forward, before);
    return compute(layer.experts.forward, dispatch);
  }

  void backward_layer(const LayerTimes& layer, bool with_weights) {
    const Index again = compute_again(layer);
    const size_t combine = travel(layer.dispatch, layer.shared.backward_input, again);
    fill();
    const size_t experts = compute(layer.experts.backward_input, combine);
    if (with_weights)
      compute(layer.experts.backward_weight + layer.shared.backward_weight, experts);
    const size_t dispatch = communicate(layer.dispatch, experts);
    fill();
    backward_ = compute(layer.attention.backward_input, dispatch);
    if (with_weights) compute(layer.attention.backward_weight, backward_);
  }

  void layer_pair(const LayerTimes& forward, const LayerTimes& backward) {
    const Index again = compute_again(backward);
    const size_t combine_b = communicate(backward.dispatch, again);
    const size_t attention = compute(forward.attention.forward, forward_);
    compute(backward.shared.backward_input, backward_);
    const size_t experts_b = compute(backward.experts.backward_input, combine_b);
    const size_t dispatch = communicate(forward.dispatch, attention);
    const size_t dispatch_b = communicate(backward.dispatch, experts_b);
    compute(backward.experts.backward_weight + backward.shared.backward_weight, experts_b);
    compute(forward.shared.forward, attention);
    const size_t experts = compute(forward.experts.forward, dispatch);
    backward_ = compute(backward.attention.backward_input, dispatch_b);
    compute(backward.attention.backward_weight, backward_);
    forward_ = communicate(forward.dispatch, experts);
  }

  const ProgramSettings& settings_;
  Beside beside_;
  std::vector<StreamOperation> operations_;
  std::vector<double> fillers_;
  size_t next_filler_ = 0;
  Index forward_;   // what the next layer's F waits for
  Index backward_;  // and the I
};

bool is_backward(const Action& action) {
  return action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardInput;
}

StepCost cost_of(const Program::Result& result, const Step& step) {
  const auto sent = [&](const Action& action) {
    return is_backward(action) ? result.backward_sent : result.forward_sent;
  };
  return {result.times.duration, sent(step.action), step.beside ? sent(*step.beside) : 0,
          result.times.communication, result.times.exposed};
}

StepCost lone_cost(const Step& step, const ChunkTimes& chunk, const ProgramSettings& settings) {
  Program program(settings, settings.overlaps ? Beside::kSharedExpert : Beside::kNothing);
  switch (step.action.kind) {
    case ActionKind::kForward:
      program.forward(chunk);
      break;
    case ActionKind::kBackwardInput:
    case ActionKind::kBackward:
      program.backward(chunk, step.action.kind == ActionKind::kBackward);
      break;
    case ActionKind::kBackwardWeight:
      return {seconds_of(weight_gradients(chunk, step.action.part))};
    case ActionKind::kReduce:
      return {chunk.reduce};
  }
  return cost_of(program.run(), step);
}

}  // namespace

StepCost step_cost(const Step& step, const ChunkTimes& action_chunk, const ChunkTimes& beside_chunk,
                   const ProgramSettings& settings) {
  if (!step.beside) return lone_cost(step, action_chunk, settings);
  if (step.beside->kind == ActionKind::kReduce) {
    // The gradients of every layer but the last are reduced beside the others.
    StepCost cost = lone_cost({step.action, {}}, action_chunk, settings);
    const auto layers = static_cast<double>(std::max<size_t>(1, beside_chunk.layers.size()));
    cost.duration = std::max(cost.duration, beside_chunk.reduce) + beside_chunk.reduce / layers;
    return cost;
  }
  Program program(settings, settings.overlaps ? Beside::kAll : Beside::kNothing);
  if (step.beside->kind == ActionKind::kBackwardWeight) {
    program.fill_with(weight_gradients(beside_chunk, step.beside->part));
    if (is_backward(step.action)) {
      program.backward(action_chunk, /*with_weights=*/false);
    } else {
      program.forward(action_chunk);
    }
  } else if (is_backward(step.action)) {
    program.block(beside_chunk, action_chunk);
  } else {
    program.block(action_chunk, beside_chunk);
  }
  return cost_of(program.run(), step);
}

}  // namespace moetron
