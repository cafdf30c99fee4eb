#include "moetron/schedule/validate_schedule.h"

#include <map>
#include <tuple>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"
#include "moetron/schedule/simulate.h"

namespace moetron {
namespace {

// How far a rank is with one micro-batch in one chunk.
enum class Progress { kNone, kForward, kBackwardInput, kDone };

class RankChecker {
 public:
  RankChecker(const Schedule& schedule, int rank)
      : schedule_(schedule),
        rank_(rank),
        progress_(static_cast<size_t>(schedule.placement.num_chunks() * schedule.num_micro_batches),
                  Progress::kNone) {}

  void check() {
    for (const Step& step : schedule_.steps[static_cast<size_t>(rank_)]) {
      if (step.beside) check_block(step);
      for (const Action& action : actions_of(step)) take(action);
    }
    const bool is_forward_only = schedule_.declared_peak.empty();
    const Progress wanted = is_forward_only ? Progress::kForward : Progress::kDone;
    for (size_t i = 0; i < progress_.size(); ++i) {
      const auto count = static_cast<size_t>(schedule_.num_micro_batches);
      MT_CHECK(progress_[i] == wanted, where(), " leaves micro-batch ", i % count, " of chunk ",
               i / count, " unfinished");
    }
  }

 private:
  std::string where() const { return concat(name_of(schedule_.kind), ": rank ", rank_); }

  void check_block(const Step& step) const {
    MT_CHECK(step.action.micro_batch != step.beside->micro_batch, where(), " runs ", describe(step),
             ", a block of one micro-batch");
  }

  void take(const Action& action) {
    const bool is_known = action.chunk >= 0 && action.chunk < schedule_.placement.num_chunks() &&
                          action.micro_batch >= 0 &&
                          action.micro_batch < schedule_.num_micro_batches;
    MT_CHECK(is_known, where(), " has ", describe(action), ", which does not exist");
    const auto chunk_begin =
        static_cast<size_t>(action.chunk) * static_cast<size_t>(schedule_.num_micro_batches);
    Progress& progress = progress_[chunk_begin + static_cast<size_t>(action.micro_batch)];
    const auto step = [&](Progress from, Progress to) {
      MT_CHECK(progress == from, where(), " has ", describe(action), " too early or twice");
      progress = to;
    };
    switch (action.kind) {
      case ActionKind::kForward:
        return step(Progress::kNone, Progress::kForward);
      case ActionKind::kBackwardInput:
        return step(Progress::kForward, Progress::kBackwardInput);
      case ActionKind::kBackwardWeight:
        step(Progress::kBackwardInput, Progress::kDone);
        return count_weight(action);
      case ActionKind::kBackward:
        step(Progress::kForward, Progress::kDone);
        return count_weight(action);
    }
  }

  void count_weight(const Action& action) {
    int& next = next_weight_[action.chunk];
    MT_CHECK(action.micro_batch == next, where(), " has the weight gradient of ", describe(action),
             " where micro-batch ", next, " is next");
    ++next;
  }

  const Schedule& schedule_;
  int rank_;
  std::vector<Progress> progress_;
  int next_weight_[2] = {0, 0};
};

// Outputs and gradients travel in channels of their own: a V sends both from rank r to r + 1, and
// which of them is first depends on the rank.
using Channel = std::tuple<int, int, bool>;  // sender, receiver, is_forward

void check_message_order(const Schedule& schedule) {
  const Placement& placement = schedule.placement;
  std::map<Channel, std::vector<Message>> sent;
  std::map<Channel, std::vector<Message>> received;
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
  const Simulation simulation = simulate_unit_costs(schedule);
  for (size_t rank = 0; rank < schedule.declared_peak.size(); ++rank) {
    MT_CHECK(simulation.peak_activations[rank] == schedule.declared_peak[rank],
             name_of(schedule.kind), ": rank ", rank, " holds ", simulation.peak_activations[rank],
             " chunk-micro-batches, not the ", schedule.declared_peak[rank], " it declares");
  }
}

}  // namespace moetron
