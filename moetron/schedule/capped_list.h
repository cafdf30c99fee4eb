// Lists of a V that hold no more than a cap, made by trying: from the first step on, each rank
// takes what is ready, under rules that a policy sets, and weight gradients fill what would be
// waits. No rank sends before the receiver has taken the last message of that kind, so that no list
// needs buffers (see unbuffered_sends.h).
#pragma once

#include <array>
#include <limits>
#include <vector>

#include "moetron/schedule/schedule.h"

namespace moetron {

// The four actions between which a rank chooses; weight gradients only fill its waits.
constexpr int kNumMoves = 4;
enum Move { kMoveF0, kMoveF1, kMoveI0, kMoveI1 };

struct ListPolicy {
  int activation_cap = 2;  // chunk-micro-batches that a rank may hold
  // By chunk and rank: micro-batches that may be between their F and their I.
  std::array<std::vector<int>, 2> credits;
  // By move and rank: the turn of a micro-batch m is 4 m more. The move with the first turn goes
  // first, and none goes that is more than `window` turns ahead of the first.
  std::array<std::vector<double>, kNumMoves> turns;
  double window = 0;
  bool has_pairs = false;                       // take F0&B1 or F1&B0 where both are ready
  std::array<int, kNumMoves> filling_halves{};  // of W beside a lone move: 0, 1 or 2
};

inline constexpr double kNever = std::numeric_limits<double>::infinity();

struct CappedList {
  // Infinite if under this policy the ranks wait for each other for good.
  double makespan = 0;
  double period = 0;            // from one micro-batch to the next, halfway
  std::vector<StepList> steps;  // by rank, without R; empty unless wanted
};

// Of the costs `UnitCosts(placement, communication)`. The policy's cap is at least 2.
CappedList make_capped_list(const ListPolicy& policy, int num_ranks, int num_micro_batches,
                            double communication, bool wants_steps);

}  // namespace moetron
