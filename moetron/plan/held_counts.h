// How much a schedule holds at its peaks, counted once for all that its chunks may weigh.
#pragma once

#include <vector>

#include "moetron/schedule/simulate.h"

namespace moetron {

// Of one rank.
class HeldCounts {
 public:
  HeldCounts(const StepList& list, int num_chunks);

  // What peak_held() finds in the list.
  double peak(const std::vector<HeldOfChunk>& by_chunk) const;
  bool in_blocks() const { return in_blocks_; }

 private:
  // By chunk, micro-batches held from their F on, then those held from their I on.
  using Counts = std::vector<int>;

  void add(const Counts& counts);

  std::vector<Counts> peaks_;  // none of them less than another in everything
  bool in_blocks_ = false;
};

// By rank, as memory_of() finds them. Of dualpipev+ it takes up to a second.
std::vector<HeldCounts> held_counts(const ScheduleRequest& request);

}  // namespace moetron
