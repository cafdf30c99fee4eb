#include "moetron/schedule/simulate.h"

#include <algorithm>
#include <deque>

#include "moetron/base/error.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

class Simulator {
 public:
  Simulator(const Schedule& schedule, const CostModel& costs)
      : schedule_(schedule),
        costs_(costs),
        arrival_(2 * static_cast<size_t>(schedule.placement.num_stages()) *
                     static_cast<size_t>(schedule.num_micro_batches),
                 -1.0),
        is_awake_(schedule.steps.size(), false) {
    result_.steps.resize(schedule.steps.size());
    result_.communication.resize(schedule.steps.size());
    result_.exposed.resize(schedule.steps.size());
    result_.reduced.resize(schedule.steps.size());
  }

  Simulation run() {
    const int num_ranks = schedule_.placement.num_ranks();
    for (int rank = 0; rank < num_ranks; ++rank) wake(rank);
    while (!awake_.empty()) {
      const int rank = awake_.front();
      awake_.pop_front();
      is_awake_[static_cast<size_t>(rank)] = false;
      while (try_step(rank)) {
      }
    }
    double busy = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      const StepList& list = schedule_.steps[static_cast<size_t>(rank)];
      const size_t at = steps_of(rank).size();
      MT_CHECK(at == list.size(), name_of(schedule_.kind), ": rank ", rank,
               " waits for good before ", describe(list[at]), ", step ", at);
      for (const SimulatedStep& step : steps_of(rank)) busy += step.end - step.begin;
    }
    result_.peak_activations = peak_activations(schedule_);
    if (result_.makespan > 0) result_.bubble_fraction = 1 - busy / (result_.makespan * num_ranks);
    return std::move(result_);
  }

 private:
  std::vector<SimulatedStep>& steps_of(int rank) {
    return result_.steps[static_cast<size_t>(rank)];
  }

  // Has a rank try again: something came that it may wait for.
  void wake(int rank) {
    if (is_awake_[static_cast<size_t>(rank)]) return;
    is_awake_[static_cast<size_t>(rank)] = true;
    awake_.push_back(rank);
  }

  // When a message is there; negative: not yet.
  double& arrival(const Message& message) {
    return arrival_[place_of(message, schedule_.num_micro_batches)];
  }

  bool try_step(int rank) {
    const StepList& list = schedule_.steps[static_cast<size_t>(rank)];
    std::vector<SimulatedStep>& done = steps_of(rank);
    if (done.empty()) done.reserve(list.size());
    if (done.size() == list.size()) return false;
    const Step& step = list[done.size()];
    double begin = done.empty() ? 0 : done.back().end;
    for (const Action& action : actions_of(step)) {
      const auto needed = needed_by(schedule_.placement, rank, action);
      if (!needed) continue;
      if (arrival(*needed) < 0) return false;
      begin = std::max(begin, arrival(*needed));
    }
    const StepCost cost = costs_.step(rank, step);
    send(rank, step.action, begin + cost.action_sent);
    if (step.beside) send(rank, *step.beside, begin + cost.beside_sent);
    result_.communication[static_cast<size_t>(rank)] += cost.communication;
    result_.exposed[static_cast<size_t>(rank)] += cost.exposed;
    result_.reduced[static_cast<size_t>(rank)] += cost.reduced;
    done.push_back({step, begin, begin + cost.duration});
    result_.makespan = std::max(result_.makespan, begin + cost.duration);
    return true;
  }

  void send(int rank, const Action& action, double time) {
    const auto made = made_by(schedule_.placement, rank, action);
    if (!made) return;
    const int to = receiver(schedule_.placement, *made);
    arrival(*made) = to == rank ? time : time + costs_.transfer(*made);
    wake(to);
  }

  const Schedule& schedule_;
  const CostModel& costs_;
  std::vector<double> arrival_;
  std::deque<int> awake_;  // ranks that may be able to go on
  std::vector<bool> is_awake_;
  Simulation result_;
};

}  // namespace

Simulation simulate(const Schedule& schedule, const CostModel& costs) {
  return Simulator(schedule, costs).run();
}

double peak_held(const StepList& list, const std::vector<HeldOfChunk>& by_chunk) {
  double held = 0;
  double peak = 0;
  for (const Step& step : list) {
    for (const Action& action : actions_of(step)) {
      const HeldOfChunk& of_chunk = by_chunk[static_cast<size_t>(action.chunk)];
      if (action.kind == ActionKind::kForward) held += of_chunk.from_forward;
      if (action.kind == ActionKind::kBackwardInput)
        held += std::max(0.0, of_chunk.from_input_grads - of_chunk.from_forward);
    }
    peak = std::max(peak, held);
    for (const Action& action : actions_of(step)) {
      const HeldOfChunk& of_chunk = by_chunk[static_cast<size_t>(action.chunk)];
      if (action.kind == ActionKind::kBackward) held -= of_chunk.from_forward;
      if (action.kind == ActionKind::kBackwardInput)
        held -= std::max(0.0, of_chunk.from_forward - of_chunk.from_input_grads);
      if (action.kind == ActionKind::kBackwardWeight && action.part != Part::kFirstHalf)
        held -= of_chunk.from_input_grads;
    }
  }
  return peak;
}

std::vector<int> peak_activations(const Schedule& schedule) {
  const int num_chunks = schedule.placement.num_chunks();
  const double unit = num_chunks == 1 ? 2 : 1;
  const std::vector<HeldOfChunk> units(static_cast<size_t>(num_chunks), {unit, unit});
  std::vector<int> peaks;
  for (const StepList& list : schedule.steps) {
    peaks.push_back(static_cast<int>(peak_held(list, units)));
  }
  return peaks;
}

}  // namespace moetron
