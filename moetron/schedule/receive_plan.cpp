#include "moetron/schedule/receive_plan.h"

#include <algorithm>

#include "moetron/base/error.h"
#include "moetron/schedule/simulate.h"

namespace moetron {
namespace {

// When each message is sent.
class SendTimes {
 public:
  SendTimes(const Schedule& schedule, const Simulation& simulation)
      : num_micro_batches_(schedule.num_micro_batches),
        times_(2 * static_cast<size_t>(schedule.placement.num_stages()) *
               static_cast<size_t>(schedule.num_micro_batches)) {
    for (size_t rank = 0; rank < simulation.steps.size(); ++rank) {
      for (const SimulatedStep& step : simulation.steps[rank]) {
        for (const Action& action : actions_of(step.step)) {
          const auto made = made_by(schedule.placement, static_cast<int>(rank), action);
          if (made) times_[place(*made)] = step.end;
        }
      }
    }
  }

  double of(const Message& message) const { return times_[place(message)]; }

 private:
  size_t place(const Message& message) const { return place_of(message, num_micro_batches_); }

  int num_micro_batches_;
  std::vector<double> times_;
};

}  // namespace

ReceivePlan make_receive_plan(const Schedule& schedule) {
  const Simulation simulation = simulate(schedule, UnitCosts(schedule.placement, 0));
  const SendTimes sent(schedule, simulation);
  ReceivePlan plan;
  for (size_t rank = 0; rank < simulation.steps.size(); ++rank) {
    const std::vector<SimulatedStep>& steps = simulation.steps[rank];
    std::vector<std::vector<Message>>& begun = plan.emplace_back(steps.size());
    for (size_t i = 0; i < steps.size(); ++i) {
      for (const Action& action : actions_of(steps[i].step)) {
        const auto needed = needed_by(schedule.placement, static_cast<int>(rank), action);
        if (!needed || sender(schedule.placement, *needed) == static_cast<int>(rank)) continue;
        const auto first = std::lower_bound(
            steps.begin(), steps.end(), sent.of(*needed),
            [](const SimulatedStep& step, double time) { return step.begin < time; });
        const auto place = static_cast<size_t>(first - steps.begin());
        MT_CHECK(place <= i, describe(action), " of rank ", rank, " begins before its input");
        begun[place].push_back(*needed);
      }
    }
  }
  return plan;
}

}  // namespace moetron
