#include "moetron/pipeline/block.h"

namespace moetron {
namespace {

// Hands each result over once.
class Handover {
 public:
  Handover(ChunkForward& forward, ChunkBackward& backward, const StepResults& results)
      : forward_(forward), backward_(backward), results_(results) {}

  void hand_over() {
    if (forward_.done() && !std::exchange(output_left_, true)) {
      results_.on_output(forward_.output());
    }
    if (backward_.done() && !std::exchange(d_input_left_, true)) {
      results_.on_d_input(backward_.d_input());
    }
  }

 private:
  ChunkForward& forward_;
  ChunkBackward& backward_;
  const StepResults& results_;
  bool output_left_ = false;
  bool d_input_left_ = false;
};

}  // namespace

void run_forward_beside_backward(ChunkForward& forward, ChunkBackward& backward,
                                 const StepResults& results) {
  Handover results_of(forward, backward, results);
  // The ends of the model have no communication to hide or to be hidden.
  while (!forward.done() && !forward.at_decoder()) forward.whole_layer();
  while (!backward.done() && !backward.at_decoder()) backward.whole_layer();
  bool is_started = false;
  while (forward.at_decoder() && backward.at_decoder()) {
    if (!is_started) backward.start();
    forward.attention();
    backward.experts();
    backward.expert_weights();
    forward.shared_expert();
    forward.experts();
    const bool forward_goes_on = forward.next_is_decoder();
    backward.attention();
    is_started = forward_goes_on && backward.at_decoder();
    if (is_started) {
      backward.start();
      backward.attention_weights();
      forward.finish();
    } else {
      forward.finish();
      results_of.hand_over();
      backward.attention_weights();
    }
  }
  while (!forward.done()) forward.whole_layer();
  results_of.hand_over();
  while (!backward.done()) {
    backward.start();
    backward.experts();
    backward.expert_weights();
    backward.attention();
    results_of.hand_over();
    backward.attention_weights();
  }
}

void Filler::fill_wait() {
  if (num_waits_ == 0) return;
  run_some((num_tasks_ + num_waits_ - 1) / num_waits_);
  --num_waits_;
}

void Filler::finish() {
  run_some(num_tasks_);
}

void Filler::run_some(size_t count) {
  if (count == 0) return;
  const SpanScope span(trace_, "weights", Pass::kBackwardWeight);
  tasks_->run_some(count);
  num_tasks_ -= count;
}

void run_forward(ChunkForward& forward, Filler filler, const StepResults& results) {
  while (!forward.done()) {
    const bool waits = forward.dispatches();
    forward.attention();
    if (waits) filler.fill_wait();
    forward.shared_expert();
    forward.experts();
    if (waits) filler.fill_wait();
    forward.finish();
  }
  results.on_output(forward.output());
  filler.finish();
}

void run_backward(ChunkBackward& backward, Filler filler, const StepResults& results) {
  if (backward.done()) results.on_d_input(backward.d_input());
  while (!backward.done()) {
    const bool waits = backward.dispatches();
    backward.start();
    if (waits) filler.fill_wait();
    backward.experts();
    if (waits) filler.fill_wait();
    backward.expert_weights();
    backward.attention();
    if (backward.done()) results.on_d_input(backward.d_input());
    backward.attention_weights();
  }
  filler.finish();
}

}  // namespace moetron
