#include "moetron/schedule/simulate.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

// Chunks of two that a rank's chunk is worth.
int weight_of(const Placement& placement) {
  return placement.num_chunks() == 1 ? 2 : 1;
}

int units_of(const Action& action) {
  return action.kind == ActionKind::kBackward ? 2 : 1;
}

class Simulator {
 public:
  explicit Simulator(const Schedule& schedule)
      : schedule_(schedule),
        arrival_(2 * static_cast<size_t>(schedule.placement.num_stages()) *
                     static_cast<size_t>(schedule.num_micro_batches),
                 -1.0) {
    result_.steps.resize(schedule.steps.size());
  }

  Simulation run() {
    const int num_ranks = schedule_.placement.num_ranks();
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < num_ranks; ++rank) {
        while (try_step(rank)) moved = true;
      }
    }
    double busy = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const StepList& list = schedule_.steps[static_cast<size_t>(rank)];
      const size_t at = steps_of(rank).size();
      MT_CHECK(at == list.size(), name_of(schedule_.kind), ": rank ", rank,
               " waits for good before ", describe(list[at]), ", step ", at);
      for (const SimulatedStep& step : steps_of(rank)) busy += step.end - step.begin;
      result_.peak_activations.push_back(peak_of(rank));
    }
    if (result_.makespan > 0) result_.bubble_fraction = 1 - busy / (result_.makespan * num_ranks);
    return std::move(result_);
  }

 private:
  std::vector<SimulatedStep>& steps_of(int rank) {
    return result_.steps[static_cast<size_t>(rank)];
  }

  // When a message is there; negative: not yet.
  double& arrival(const Message& message) {
    const int place = (message.from_stage * 2 + message.is_forward) * schedule_.num_micro_batches +
                      message.micro_batch;
    return arrival_[static_cast<size_t>(place)];
  }

  bool try_step(int rank) {
    const StepList& list = schedule_.steps[static_cast<size_t>(rank)];
    std::vector<SimulatedStep>& done = steps_of(rank);
    if (done.size() == list.size()) return false;
    const Step& step = list[done.size()];
    double begin = done.empty() ? 0 : done.back().end;
    int units = 0;
    for (const Action& action : actions_of(step)) {
      units += units_of(action);
      const auto needed = needed_by(schedule_.placement, rank, action);
      if (!needed) continue;
      if (arrival(*needed) < 0) return false;
      begin = std::max(begin, arrival(*needed));
    }
    const double end = begin + units * weight_of(schedule_.placement);
    for (const Action& action : actions_of(step)) {
      if (const auto made = made_by(schedule_.placement, rank, action)) arrival(*made) = end;
    }
    done.push_back({step, begin, end});
    result_.makespan = std::max(result_.makespan, end);
    return true;
  }

  // In a block both micro-batches are held.
  int peak_of(int rank) const {
    int held = 0;
    int peak = 0;
    for (const Step& step : schedule_.steps[static_cast<size_t>(rank)]) {
      for (const Action& action : actions_of(step)) held += action.kind == ActionKind::kForward;
      peak = std::max(peak, held);
      for (const Action& action : actions_of(step)) {
        held -= action.kind == ActionKind::kBackward || action.kind == ActionKind::kBackwardWeight;
      }
    }
    return peak * weight_of(schedule_.placement);
  }

  const Schedule& schedule_;
  std::vector<double> arrival_;
  Simulation result_;
};

}  // namespace

Simulation simulate_unit_costs(const Schedule& schedule) {
  return Simulator(schedule).run();
}

}  // namespace moetron
