#include "moetron/schedule/validate_schedule.h"

#include <map>
#include <tuple>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"
#include "moetron/schedule/simulate.h"
#include "moetron/schedule/unbuffered_sends.h"

namespace moetron {
namespace {

// How far a rank is with one micro-batch in one chunk.
enum class Progress { kNone, kForward, kBackwardInput, kHalfWeight, kDone };

class RankChecker {
 public:
  RankChecker(const Schedule& schedule, int rank)
      : schedule_(schedule),
        rank_(rank),
        progress_(static_cast<size_t>(schedule.placement.num_chunks() * schedule.num_micro_batches),
                  Progress::kNone),
        chunks_(static_cast<size_t>(schedule.placement.num_chunks())) {}

  void check() {
    for (const Step& step : schedule_.steps[static_cast<size_t>(rank_)]) {
      MT_CHECK(!step.beside || is_block(step.action, *step.beside), where(), " runs ",
               describe(step), ", which is no block");
      for (const Action& action : actions_of(step)) take(action);
      ++step_;
    }
    const bool is_forward_only = schedule_.declared_peak.empty();
    const Progress wanted = is_forward_only ? Progress::kForward : Progress::kDone;
    for (size_t i = 0; i < progress_.size(); ++i) {
      const auto count = static_cast<size_t>(schedule_.num_micro_batches);
      MT_CHECK(progress_[i] == wanted, where(), " leaves micro-batch ", i % count, " of chunk ",
               i / count, " unfinished");
    }
    for (int chunk = 0; chunk < schedule_.placement.num_chunks(); ++chunk) {
      MT_CHECK(of(chunk).is_reduced != is_forward_only, where(), " does not reduce chunk ", chunk);
    }
  }

 private:
  std::string where() const { return concat(name_of(schedule_.kind), ": rank ", rank_); }

  static bool is_block(const Action& action, const Action& beside) {
    using enum ActionKind;
    switch (beside.kind) {
      case kForward:
        return action.kind == kBackward && action.micro_batch != beside.micro_batch;
      case kBackward:
        return action.kind == kForward && action.micro_batch != beside.micro_batch;
      case kBackwardWeight:
        return (action.kind == kForward || action.kind == kBackwardInput) &&
               (action.chunk != beside.chunk || action.micro_batch != beside.micro_batch);
      case kReduce:
        return (action.kind == kBackwardWeight || action.kind == kBackward) &&
               action.chunk == beside.chunk;
      case kBackwardInput:
        return false;
    }
    return false;
  }

  void take(const Action& action) {
    const bool is_known =
        action.chunk >= 0 && action.chunk < schedule_.placement.num_chunks() &&
        action.micro_batch >= 0 && action.micro_batch < schedule_.num_micro_batches &&
        (action.part == Part::kWhole || action.kind == ActionKind::kBackwardWeight);
    MT_CHECK(is_known, where(), " has ", describe(action), ", which does not exist");
    const auto chunk_begin =
        static_cast<size_t>(action.chunk) * static_cast<size_t>(schedule_.num_micro_batches);
    Progress& progress = progress_[chunk_begin + static_cast<size_t>(action.micro_batch)];
    const auto move = [&](Progress from, Progress to) {
      MT_CHECK(progress == from, where(), " has ", describe(action), " too early or twice");
      progress = to;
    };
    switch (action.kind) {
      case ActionKind::kForward:
        return move(Progress::kNone, Progress::kForward);
      case ActionKind::kBackwardInput:
        return move(Progress::kForward, Progress::kBackwardInput);
      case ActionKind::kBackwardWeight:
        move(action.part == Part::kSecondHalf ? Progress::kHalfWeight : Progress::kBackwardInput,
             action.part == Part::kFirstHalf ? Progress::kHalfWeight : Progress::kDone);
        return count_weight(action);
      case ActionKind::kBackward:
        move(Progress::kForward, Progress::kDone);
        return count_weight(action);
      case ActionKind::kReduce:
        return reduce(action);
    }
  }

  void count_weight(const Action& action) {
    for (const Part half : {Part::kFirstHalf, Part::kSecondHalf}) {
      if (action.part != Part::kWhole && action.part != half) continue;
      int& next = of(action.chunk).next_weight[half == Part::kSecondHalf];
      MT_CHECK(action.micro_batch == next, where(), " has the weight gradient of ",
               describe(action), " where micro-batch ", next, " is next");
      ++next;
    }
    of(action.chunk).last_weight = step_;
  }

  void reduce(const Action& action) {
    OfChunk& chunk = of(action.chunk);
    MT_CHECK(chunk.next_weight[1] == schedule_.num_micro_batches, where(), " has ",
             describe(action), " before its last weight gradient");
    MT_CHECK(!chunk.is_reduced, where(), " has ", describe(action), " twice");
    MT_CHECK(step_ <= chunk.last_weight + 1, where(), " has ", describe(action),
             " later than right behind its last weight gradient");
    chunk.is_reduced = true;
  }

  const Schedule& schedule_;
  int rank_;
  std::vector<Progress> progress_;
  struct OfChunk {
    int next_weight[2] = {};  // micro-batch, by half
    int last_weight = 0;      // step of the last one
    bool is_reduced = false;
  };
  OfChunk& of(int chunk) { return chunks_[static_cast<size_t>(chunk)]; }
  std::vector<OfChunk> chunks_;
  int step_ = 0;
};

// Outputs and gradients travel in channels of their own: a V sends both from rank r to r + 1, and
// which of them is first depends on the rank.
using Direction = std::tuple<int, int, bool>;  // sender, receiver, is_forward

void check_message_order(const Schedule& schedule) {
  const Placement& placement = schedule.placement;
  std::map<Direction, std::vector<Message>> sent;
  std::map<Direction, std::vector<Message>> received;
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    for (const Step& step : schedule.steps[static_cast<size_t>(rank)]) {
      for (const Action& action : actions_of(step)) {
        const auto needed = needed_by(placement, rank, action);
        if (needed && sender(placement, *needed) != rank) {
          received[{sender(placement, *needed), rank, needed->is_forward}].push_back(*needed);
        }
        const auto made = made_by(placement, rank, action);
        if (made && receiver(placement, *made) != rank) {
          sent[{rank, receiver(placement, *made), made->is_forward}].push_back(*made);
        }
      }
    }
  }
  for (const auto& [channel, messages] : sent) {
    MT_CHECK(received[channel] == messages, name_of(schedule.kind), ": rank ", std::get<0>(channel),
             " does not send in the order in which rank ", std::get<1>(channel), " receives");
  }
}

}  // namespace

void validate_schedule(const Schedule& schedule) {
  for (int rank = 0; rank < schedule.placement.num_ranks(); ++rank) {
    RankChecker(schedule, rank).check();
  }
  check_message_order(schedule);
  check_unbuffered_sends(schedule);
  const Simulation simulation = simulate(schedule, UnitCosts(schedule.placement, 0));
  for (size_t rank = 0; rank < schedule.declared_peak.size(); ++rank) {
    MT_CHECK(simulation.peak_activations[rank] == schedule.declared_peak[rank],
             name_of(schedule.kind), ": rank ", rank, " holds ", simulation.peak_activations[rank],
             " chunk-micro-batches, not the ", schedule.declared_peak[rank], " it declares");
  }
}

}  // namespace moetron
