// The list of one rank under each kind of schedule; make_schedule() has checked the numbers.
#pragma once

#include <deque>

#include "moetron/schedule/schedule.h"

namespace moetron {

StepList list_gpipe(int num_ranks, int rank, int num_micro_batches);
StepList list_1f1b(int num_ranks, int rank, int num_micro_batches);
StepList list_interleaved(int num_ranks, int rank, int num_micro_batches, int num_chunks);
StepList list_zb_h1(int num_ranks, int rank, int num_micro_batches);
StepList list_zb_v(int num_ranks, int rank, int num_micro_batches);
StepList list_dualpipev(int num_ranks, int rank, int num_micro_batches);
// DualPipeV's, and with `pairs_all` that in which the last rank's first pair, too, is a block: a
// unit less where communication waits.
StepList list_v_of_pairs(int num_ranks, int rank, int num_micro_batches, bool pairs_all);
// The forwards alone; any number of micro-batches.
StepList list_forwards(const Placement& placement, int rank, int num_micro_batches);

// Adds the R of every chunk, right behind the last W or B of it.
void place_reductions(StepList& list, int num_chunks);

// Writes a list of chunks whose micro-batches come in order.
class ListWriter {
 public:
  explicit ListWriter(int num_chunks = 2)
      : forward_(static_cast<size_t>(num_chunks)), backward_(static_cast<size_t>(num_chunks)) {}

  void forward(int chunk) { steps_.push_back({next_forward(chunk), {}}); }
  void backward(int chunk) { steps_.push_back({next_backward(chunk), {}}); }
  // W comes later: the oldest input gradient without it is first.
  void backward_input(int chunk);
  void backward_weight();           // of the oldest input gradient of any chunk
  void backward_weight(int chunk);  // of the oldest of this chunk
  void forward_and_backward(int forward_chunk, int backward_chunk);

  int num_forward(int chunk) const { return forward_[static_cast<size_t>(chunk)]; }
  int num_backward(int chunk) const { return backward_[static_cast<size_t>(chunk)]; }
  int num_waiting() const { return static_cast<int>(waiting_.size()); }
  StepList take() { return std::move(steps_); }

 private:
  Action next_forward(int chunk) {
    return {ActionKind::kForward, chunk, forward_[static_cast<size_t>(chunk)]++};
  }
  Action next_backward(int chunk) {
    return {ActionKind::kBackward, chunk, backward_[static_cast<size_t>(chunk)]++};
  }

  StepList steps_;
  std::vector<int> forward_, backward_;  // begun, by chunk
  std::deque<Action> waiting_;
};

}  // namespace moetron
