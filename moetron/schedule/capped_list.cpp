#include "moetron/schedule/capped_list.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "moetron/base/error.h"
#include "moetron/schedule/costs.h"

namespace moetron {
namespace {

constexpr double kHalf = 0.5;  // time of half a W

bool is_forward(int move) {
  return move == kMoveF0 || move == kMoveF1;
}
int chunk_of(int move) {
  return move == kMoveF1 || move == kMoveI1 ? 1 : 0;
}

struct RankState {
  int forwards[2] = {};  // begun, by chunk
  int inputs[2] = {};
  int halves[2] = {};  // of W
  int held = 0;
  double free_at = 0;
  bool ends_in_half = false;  // its last step is half a W, and no more

  int& count(int move) { return (is_forward(move) ? forwards : inputs)[chunk_of(move)]; }
  int waiting_halves(int chunk) const { return 2 * inputs[chunk] - halves[chunk]; }
  int waiting_halves() const { return waiting_halves(0) + waiting_halves(1); }
};

// When each rank looks again for something to do; a tree of the earliest, for there are many ranks
// and a change concerns one.
class WakeTimes {
 public:
  explicit WakeTimes(int num_ranks)
      : num_leaves_(std::bit_ceil(static_cast<size_t>(num_ranks))),
        earliest_(2 * num_leaves_, kNever) {
    for (int rank = 0; rank < num_ranks; ++rank) set(rank, 0);
  }

  double get(int rank) const { return earliest_[num_leaves_ + static_cast<size_t>(rank)]; }
  double earliest() const { return earliest_[1]; }

  void set(int rank, double time) {
    size_t node = num_leaves_ + static_cast<size_t>(rank);
    earliest_[node] = time;
    for (; node > 1; node /= 2) {
      const double first = std::min(earliest_[node], earliest_[node ^ 1]);
      if (earliest_[node / 2] == first) return;
      earliest_[node / 2] = first;
    }
  }

  // The first of the ranks that wake earliest.
  int first_rank() const {
    size_t node = 1;
    while (node < num_leaves_) node = 2 * node + (earliest_[2 * node] > earliest_[2 * node + 1]);
    return static_cast<int>(node - num_leaves_);
  }

 private:
  size_t num_leaves_;
  std::vector<double> earliest_;  // node n is above 2 n and 2 n + 1; leaves come last
};

class CappedLister {
 public:
  CappedLister(const ListPolicy& policy, int num_ranks, int num_micro_batches, double communication,
               bool wants_steps)
      : policy_(policy),
        num_ranks_(num_ranks),
        num_micro_batches_(num_micro_batches),
        wants_steps_(wants_steps),
        states_(static_cast<size_t>(num_ranks)),
        wakes_(num_ranks),
        arrival_(4 * static_cast<size_t>(num_ranks) * static_cast<size_t>(num_micro_batches),
                 kNever) {
    const UnitCosts costs({Placement::Shape::kV, num_ranks}, communication);
    const Action forward{ActionKind::kForward, 0, 0};
    lone_[0] = costs.step(0, {forward, {}});
    lone_[1] =
        costs.step(0, {forward, Action{ActionKind::kBackwardWeight, 1, 1, Part::kFirstHalf}});
    lone_[2] = costs.step(0, {forward, Action{ActionKind::kBackwardWeight, 1, 1}});
    pair_ = costs.step(0, {forward, Action{ActionKind::kBackward, 1, 1}});
    for (int m = 0; m < num_micro_batches; ++m) arrival(true, 0, m) = 0;
    if (!wants_steps) return;
    list_.steps.resize(static_cast<size_t>(num_ranks));
    for (StepList& list : list_.steps) list.reserve(5 * static_cast<size_t>(num_micro_batches));
  }

  CappedList run() {
    while (wakes_.earliest() < kNever) act(wakes_.first_rank(), wakes_.earliest());
    for (const RankState& state : states_) {
      const bool is_done = state.halves[0] + state.halves[1] == 4 * num_micro_batches_;
      list_.makespan = std::max(list_.makespan, is_done ? state.free_at : kNever);
    }
    const int third = num_micro_batches_ / 3;
    if (third > 0 && list_.makespan < kNever) {
      list_.period = (arrival_at_end(2 * third) - arrival_at_end(third)) / third;
    }
    return std::move(list_);
  }

 private:
  RankState& state(int rank) { return states_[static_cast<size_t>(rank)]; }
  int rank_of(int stage) const { return std::min(stage, 2 * num_ranks_ - 1 - stage); }
  int stage(int rank, int chunk) const { return chunk == 0 ? rank : 2 * num_ranks_ - 1 - rank; }

  // When what an F, or the gradient that an I, of this stage needs is there.
  double& arrival(bool forward, int stage, int micro_batch) {
    const int row = 2 * stage + (forward ? 1 : 0);
    return arrival_[static_cast<size_t>(row) * static_cast<size_t>(num_micro_batches_) +
                    static_cast<size_t>(micro_batch)];
  }
  // Of a gradient at the first stage.
  double arrival_at_end(int micro_batch) { return arrival(false, 0, micro_batch); }

  double ready_at(int rank, int move) {
    const int chunk = chunk_of(move);
    RankState& at = state(rank);
    const int micro_batch = at.count(move);
    if (micro_batch == num_micro_batches_) return kNever;
    const int credit = policy_.credits[static_cast<size_t>(chunk)][static_cast<size_t>(rank)];
    if (is_forward(move) && at.forwards[chunk] - at.inputs[chunk] >= credit) return kNever;
    if (is_ahead(rank, move)) return kNever;
    return arrival(is_forward(move), stage(rank, chunk), micro_batch);
  }

  // The rank that would get what a move of this rank makes, or made what it takes; -1: none does.
  int neighbour(int rank, int move, bool receives) const {
    const int other = stage(rank, chunk_of(move)) + (is_forward(move) == receives ? 1 : -1);
    if (other < 0 || other == 2 * num_ranks_) return -1;
    const int neighbour = rank_of(other);
    return neighbour == rank ? -1 : neighbour;
  }

  // Whether the receiver has still to take the last message of this kind.
  bool is_ahead(int rank, int move) {
    const int receiver = neighbour(rank, move, true);
    return receiver >= 0 && state(rank).count(move) > state(receiver).count(move);
  }

  // Something was taken: who sent it may go on.
  void wake_sender(int rank, int move, double now) {
    const int sender = neighbour(rank, move, false);
    if (sender >= 0) wake(sender, now);
  }

  void wake(int rank, double time) {
    const double wake_at = std::max(time, state(rank).free_at);
    if (wake_at < wakes_.get(rank)) wakes_.set(rank, wake_at);
  }

  void deliver(bool forward, int stage, int micro_batch, double time) {
    const bool turns_back = forward && stage == 2 * num_ranks_ - 1;
    const int to = turns_back ? stage : forward ? stage + 1 : stage - 1;
    if (to < 0) return;
    arrival(forward && !turns_back, to, micro_batch) = time;
    wake(rank_of(to), time);
  }

  void act(int rank, double now);
  void take_pair(int rank, double now, int forward_chunk);
  void take_move(int rank, double now, int move);
  void take_half(int rank, double now);
  int next_move(int rank, double now, const std::array<double, kNumMoves>& ready, bool has_room);

  // The chunk whose W is next: one begun goes on, else the chunk where most wait. -1: none that is
  // not of this micro-batch.
  int chunk_to_fill(const RankState& at, int except_micro_batch) const {
    int best = -1;
    for (int chunk = 0; chunk < 2; ++chunk) {
      if (at.waiting_halves(chunk) == 0 || at.halves[chunk] / 2 == except_micro_batch) continue;
      const bool is_better =
          best < 0 || at.halves[chunk] % 2 == 1 ||
          (at.halves[best] % 2 == 0 && at.waiting_halves(chunk) > at.waiting_halves(best));
      if (is_better) best = chunk;
    }
    return best;
  }

  // Takes this many halves of the next W of a chunk.
  static Action weight(RankState& at, int chunk, int num_halves) {
    const Part part = num_halves == 2             ? Part::kWhole
                      : at.halves[chunk] % 2 == 0 ? Part::kFirstHalf
                                                  : Part::kSecondHalf;
    const Action action{ActionKind::kBackwardWeight, chunk, at.halves[chunk] / 2, part};
    at.halves[chunk] += num_halves;
    if (at.halves[chunk] % 2 == 0) --at.held;
    return action;
  }

  void finish(int rank, double end, const Step& step) {
    RankState& at = state(rank);
    at.free_at = end;
    wakes_.set(rank, end);
    at.ends_in_half = false;
    if (wants_steps_) list_.steps[static_cast<size_t>(rank)].push_back(step);
  }

  const ListPolicy& policy_;
  int num_ranks_;
  int num_micro_batches_;
  bool wants_steps_;
  std::array<StepCost, 3> lone_;  // F or I, by halves of W beside it
  StepCost pair_;
  std::vector<RankState> states_;
  WakeTimes wakes_;
  std::vector<double> arrival_;
  CappedList list_;
};

// -1: none may go now.
int CappedLister::next_move(int rank, double now, const std::array<double, kNumMoves>& ready,
                            bool has_room) {
  RankState& at = state(rank);
  int best = -1;
  double best_turn = kNever;
  double first_turn = kNever;
  for (int move = 0; move < kNumMoves; ++move) {
    const int micro_batch = at.count(move);
    if (micro_batch == num_micro_batches_) continue;
    const double turn =
        4 * micro_batch + policy_.turns[static_cast<size_t>(move)][static_cast<size_t>(rank)];
    first_turn = std::min(first_turn, turn);
    const bool may_go = ready[static_cast<size_t>(move)] <= now && (has_room || !is_forward(move));
    if (!may_go || turn >= best_turn) continue;
    best = move;
    best_turn = turn;
  }
  return best_turn <= first_turn + policy_.window ? best : -1;
}

void CappedLister::act(int rank, double now) {
  RankState& at = state(rank);
  std::array<double, kNumMoves> ready{};
  for (int move = 0; move < kNumMoves; ++move) {
    ready[static_cast<size_t>(move)] = ready_at(rank, move);
  }
  const bool has_room = at.held < policy_.activation_cap;
  if (policy_.has_pairs && has_room) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      const bool is_ready = ready[static_cast<size_t>(chunk)] <= now &&
                            ready[static_cast<size_t>(kMoveI0 + 1 - chunk)] <= now;
      // The W of the pair is the next of its chunk only if no other waits.
      if (is_ready && at.waiting_halves(1 - chunk) == 0) return take_pair(rank, now, chunk);
    }
  }
  const int move = next_move(rank, now, ready, has_room);
  if (move >= 0) return take_move(rank, now, move);
  const bool needs_room = !has_room && std::min(ready[kMoveF0], ready[kMoveF1]) <= now;
  double next = kNever;
  for (const double time : ready) {
    if (time > now) next = std::min(next, time);
  }
  if (at.waiting_halves() > 0 && (needs_room || next >= now + kHalf)) return take_half(rank, now);
  wakes_.set(rank, next);
}

void CappedLister::take_pair(int rank, double now, int forward_chunk) {
  RankState& at = state(rank);
  const int chunk = 1 - forward_chunk;
  const Action forward{ActionKind::kForward, forward_chunk, at.forwards[forward_chunk]++};
  const Action backward{ActionKind::kBackward, chunk, at.inputs[chunk]++};
  at.halves[chunk] += 2;
  finish(rank, now + pair_.duration, {forward, backward});
  wake_sender(rank, kMoveF0 + forward_chunk, now);
  wake_sender(rank, kMoveI0 + chunk, now);
  deliver(true, stage(rank, forward_chunk), forward.micro_batch, now + pair_.action_sent);
  deliver(false, stage(rank, chunk), backward.micro_batch, now + pair_.beside_sent);
}

void CappedLister::take_move(int rank, double now, int move) {
  RankState& at = state(rank);
  const int chunk = chunk_of(move);
  const bool forward = is_forward(move);
  int& count = at.count(move);
  Step step{{forward ? ActionKind::kForward : ActionKind::kBackwardInput, chunk, count}, {}};
  int halves = policy_.filling_halves[static_cast<size_t>(move)];
  const int filler = halves > 0 ? chunk_to_fill(at, count) : -1;
  if (filler < 0) {
    halves = 0;
  } else {
    if (at.halves[filler] % 2 == 1) halves = 1;
    step.beside = weight(at, filler, halves);
  }
  if (forward) ++at.held;
  const int micro_batch = count++;
  const StepCost& cost = lone_[static_cast<size_t>(halves)];
  finish(rank, now + cost.duration, step);
  wake_sender(rank, move, now);
  deliver(forward, stage(rank, chunk), micro_batch, now + cost.action_sent);
}

void CappedLister::take_half(int rank, double now) {
  RankState& at = state(rank);
  const bool goes_on = at.ends_in_half && at.free_at == now;
  const Action action = weight(at, chunk_to_fill(at, -1), 1);
  if (goes_on && action.part == Part::kSecondHalf && wants_steps_) {
    StepList& list = list_.steps[static_cast<size_t>(rank)];
    list.back().action.part = Part::kWhole;
    at.free_at = now + kHalf;
    wakes_.set(rank, now + kHalf);
    at.ends_in_half = false;
    return;
  }
  finish(rank, now + kHalf, {action, {}});
  at.ends_in_half = action.part == Part::kFirstHalf;
}

}  // namespace

CappedList make_capped_list(const ListPolicy& policy, int num_ranks, int num_micro_batches,
                            double communication, bool wants_steps) {
  MT_CHECK(policy.activation_cap >= 2, "activation_cap (", policy.activation_cap,
           ") must be at least 2");
  return CappedLister(policy, num_ranks, num_micro_batches, communication, wants_steps).run();
}

}  // namespace moetron
