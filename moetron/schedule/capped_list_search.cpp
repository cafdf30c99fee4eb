#include "moetron/schedule/capped_list_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr int kMaxTrials = 4000;
constexpr int64_t kLongList = 400'000;  // steps
constexpr double kAnyTurn = kNever;     // a window

class Searcher {
 public:
  explicit Searcher(const CappedSearch& search)
      : search_(search),
        num_ranks_(search.num_ranks),
        // A list of many micro-batches repeats itself between its two ends.
        num_tried_(std::min(search.num_micro_batches, 5 * num_ranks_ + 16)),
        random_(1) {}

  CappedList run() {
    // Where no search follows, only the shift that makes no rank wait is tried.
    const bool is_alone = search_.max_steps == 0;
    const int first_shift = is_alone && num_ranks_ % 2 == 0 ? 2 : 0;
    const int num_shifts = is_alone ? 1 : 4;
    for (int i = 0; i < num_shifts; ++i) try_policy(cyclic(first_shift + i));
    if (best_makespan_ == kNever) try_policy(one_at_a_time());  // this one always works
    for (int i = 0; i < kMaxTrials && num_steps_ < search_.max_steps; ++i) {
      const bool is_early = i < kMaxTrials / 4 && num_steps_ < search_.max_steps / 4;
      try_policy(is_early ? random_policy() : changed(best_));
    }
    return make(best_, search_.num_micro_batches, true);
  }

 private:
  int64_t steps_of(int num_micro_batches) const {
    return int64_t{6} * num_ranks_ * num_micro_batches;
  }
  int pick(int count) { return static_cast<int>(random_() % static_cast<uint64_t>(count)); }

  void try_policy(const ListPolicy& policy);
  CappedList make(const ListPolicy& policy, int num_micro_batches, bool wants_steps);

  ListPolicy one_at_a_time() const;
  ListPolicy cyclic(int shift) const;
  void give_credits(ListPolicy& policy);
  void give_turns(ListPolicy& policy);
  ListPolicy random_policy();
  ListPolicy changed(ListPolicy policy);
  void change_once(ListPolicy& policy);

  CappedSearch search_;
  int num_ranks_;
  int num_tried_;           // micro-batches
  std::mt19937_64 random_;  // its numbers are the same on every platform
  ListPolicy best_;
  double best_makespan_ = kNever;
  int64_t num_steps_ = 0;  // of all lists made, about
};

CappedList Searcher::make(const ListPolicy& policy, int num_micro_batches, bool wants_steps) {
  num_steps_ += steps_of(num_micro_batches);
  return make_capped_list(policy, num_ranks_, num_micro_batches, search_.communication,
                          wants_steps);
}

// A part of the list tells how long the whole takes; where that is promising, the whole is made,
// unless it is so long that its ends do not matter. As good is good enough: from there other
// changes are found.
void Searcher::try_policy(const ListPolicy& policy) {
  const CappedList part = make(policy, num_tried_, false);
  double makespan = part.makespan + part.period * (search_.num_micro_batches - num_tried_);
  if (makespan > best_makespan_) return;
  const bool is_cut = num_tried_ < search_.num_micro_batches;
  if (is_cut && steps_of(search_.num_micro_batches) < kLongList) {
    makespan = make(policy, search_.num_micro_batches, false).makespan;
  }
  if (makespan > best_makespan_) return;
  best_ = policy;
  best_makespan_ = makespan;
}

// The next micro-batch waits until the one before is through: two activations at most.
ListPolicy Searcher::one_at_a_time() const {
  ListPolicy policy = cyclic(0);
  for (auto& credits : policy.credits) credits.assign(static_cast<size_t>(num_ranks_), 1);
  policy.filling_halves = {};
  policy.window = kAnyTurn;
  return policy;
}

// Each rank takes F0, F1, I0 and I1 in turn, each of the micro-batch that comes around then: with
// an even number of ranks and shift 2, or an odd and 0, none waits for another, and half a W fits
// beside each.
ListPolicy Searcher::cyclic(int shift) const {
  ListPolicy policy;
  policy.activation_cap = search_.activation_cap;
  for (auto& credits : policy.credits) {
    credits.assign(static_cast<size_t>(num_ranks_), search_.num_micro_batches);
  }
  for (int rank = 0; rank < num_ranks_; ++rank) {
    policy.turns[kMoveF0].push_back(rank);
    policy.turns[kMoveF1].push_back(2 * num_ranks_ - 1 - rank);
    policy.turns[kMoveI1].push_back(2 * num_ranks_ + rank + shift);
    policy.turns[kMoveI0].push_back(4 * num_ranks_ - 1 - rank + shift);
  }
  policy.filling_halves.fill(1);
  return policy;
}

// In a V a rank holds the more of chunk 1 the further down it is.
void Searcher::give_credits(ListPolicy& policy) {
  const int cap = search_.activation_cap;
  const double lean = 0.5 * (pick(3) - 1);
  const int extra = pick(3) - 1;
  for (int rank = 0; rank < num_ranks_; ++rank) {
    const double share = cap * (rank + 1 + lean) / (2 * num_ranks_ + 1);
    const int second = std::clamp(static_cast<int>(std::lround(share)), 1, cap - 1);
    policy.credits[1][static_cast<size_t>(rank)] = second;
    policy.credits[0][static_cast<size_t>(rank)] = std::max(1, cap - second + extra);
  }
}

// The cyclic order, or always one move before another.
void Searcher::give_turns(ListPolicy& policy) {
  if (pick(2) == 0) {
    static constexpr double kWindows[] = {0, 1, 2, 3, 4, 6, 8, 12};
    policy.turns = cyclic(pick(5)).turns;
    policy.window = kWindows[pick(8)];
    return;
  }
  std::array<int, kNumMoves> order{0, 1, 2, 3};
  for (int i = kNumMoves - 1; i > 0; --i) {
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(pick(i + 1))]);
  }
  for (size_t move = 0; move < kNumMoves; ++move) {
    const double turn = 4.0 * search_.num_micro_batches * order[move];
    policy.turns[move].assign(static_cast<size_t>(num_ranks_), turn);
  }
  policy.window = kAnyTurn;
}

ListPolicy Searcher::random_policy() {
  ListPolicy policy = cyclic(0);
  if (pick(4) > 0) give_credits(policy);
  give_turns(policy);
  policy.has_pairs = pick(2) == 0;
  policy.filling_halves.fill(pick(3));
  return policy;
}

ListPolicy Searcher::changed(ListPolicy policy) {
  for (int i = 1 + pick(3); i > 0; --i) change_once(policy);
  return policy;
}

void Searcher::change_once(ListPolicy& policy) {
  const auto rank = static_cast<size_t>(pick(num_ranks_));
  const auto move = static_cast<size_t>(pick(kNumMoves));
  const int change = pick(20);
  if (change == 0) {
    policy.has_pairs = !policy.has_pairs;
  } else if (change == 1) {
    give_credits(policy);
  } else if (change == 2) {
    give_turns(policy);
  } else if (change < 6) {
    policy.filling_halves[move] = pick(3);
  } else if (change < 13) {
    policy.turns[move][rank] += pick(2) == 0 ? 1 : -1;
  } else {
    const int by = pick(2) == 0 ? 1 : -1;
    int& credit = policy.credits[move % 2][rank];
    credit = std::max(1, std::min(credit, search_.activation_cap) + by);
    int& other = policy.credits[1 - move % 2][rank];
    if (pick(2) == 0) other = std::max(1, other - by);
  }
}

}  // namespace

CappedList find_capped_list(const CappedSearch& search) {
  return Searcher(search).run();
}

}  // namespace moetron
