#include "moetron/schedule/measured_step.h"

#include <algorithm>
#include <array>
#include <limits>
#include <map>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/schedule/message.h"

namespace moetron {
namespace {

// What steps that cost the same have in common: rank, and kind, chunk and part of each action.
using Likeness = std::array<int, 7>;

Likeness likeness_of(int rank, const Step& step) {
  Likeness key{rank, -1, -1, -1, -1, -1, -1};
  size_t i = 1;
  for (const Action& action : actions_of(step)) {
    key[i++] = static_cast<int>(action.kind);
    key[i++] = action.chunk;
    key[i++] = static_cast<int>(action.part);
  }
  return key;
}

struct MeanCost {
  double sum = 0;
  int count = 0;
  // From begin to what the action, and the one beside it, make for other ranks: at best.
  double action_sent = std::numeric_limits<double>::infinity();
  double beside_sent = std::numeric_limits<double>::infinity();

  double mean() const { return sum / count; }
};

// Of a table by message.
size_t num_places(const Schedule& schedule) {
  return 2 * static_cast<size_t>(schedule.placement.num_stages()) *
         static_cast<size_t>(schedule.num_micro_batches);
}

class MeasuredCosts final : public CostModel {
 public:
  MeasuredCosts(const Schedule& schedule, const std::vector<std::vector<SimulatedStep>>& steps) {
    const std::vector<double> used = begins_of_readers(schedule, steps);
    for (size_t r = 0; r < steps.size(); ++r) {
      const int rank = static_cast<int>(r);
      for (const SimulatedStep& step : steps[r]) {
        MeanCost& cost = costs_[likeness_of(rank, step.step)];
        cost.sum += step.end - step.begin;
        ++cost.count;
        const auto take_sent = [&](const Action& action, double& sent) {
          const auto message = made_by(schedule.placement, rank, action);
          if (!message) return;
          const double at = used[place_of(*message, schedule.num_micro_batches)];
          sent = std::min(sent, std::max(0.0, at - step.begin));
        };
        take_sent(step.step.action, cost.action_sent);
        if (step.step.beside) take_sent(*step.step.beside, cost.beside_sent);
      }
    }
  }

  StepCost step(int rank, const Step& step) const override {
    const MeanCost& cost = costs_.at(likeness_of(rank, step));
    const double duration = cost.mean();
    return {.duration = duration,
            .action_sent = std::min(duration, cost.action_sent),
            .beside_sent = std::min(duration, cost.beside_sent)};
  }
  double transfer(const Message&) const override { return 0; }

 private:
  // By message, when the step that waited for it began; infinity where nobody did.
  static std::vector<double> begins_of_readers(
      const Schedule& schedule, const std::vector<std::vector<SimulatedStep>>& steps) {
    std::vector<double> begins(num_places(schedule), std::numeric_limits<double>::infinity());
    for (size_t r = 0; r < steps.size(); ++r) {
      for (const SimulatedStep& step : steps[r]) {
        for (const Action& action : actions_of(step.step)) {
          const auto message = needed_by(schedule.placement, static_cast<int>(r), action);
          if (message) begins[place_of(*message, schedule.num_micro_batches)] = step.begin;
        }
      }
    }
    return begins;
  }

  std::map<Likeness, MeanCost> costs_;
};

double first_begin(const std::vector<std::vector<SimulatedStep>>& steps) {
  double first = std::numeric_limits<double>::infinity();
  for (const auto& of_rank : steps)
    for (const SimulatedStep& step : of_rank) first = std::min(first, step.begin);
  return first;
}

// As a simulation tells it, from `begin` on.
Simulation real_simulation(std::vector<std::vector<SimulatedStep>> steps, double begin) {
  Simulation result;
  double busy = 0;
  for (auto& of_rank : steps) {
    for (SimulatedStep& step : of_rank) {
      step.begin -= begin;
      step.end -= begin;
      busy += step.end - step.begin;
      result.makespan = std::max(result.makespan, step.end);
    }
  }
  if (result.makespan > 0)
    result.bubble_fraction = 1 - busy / (result.makespan * static_cast<double>(steps.size()));
  result.steps = std::move(steps);
  return result;
}

void check_same_steps(const Schedule& schedule, const Simulation& real) {
  MT_CHECK(real.steps.size() == schedule.steps.size(), real.steps.size(),
           " ranks were measured of ", schedule.steps.size());
  for (size_t rank = 0; rank < real.steps.size(); ++rank) {
    const bool is_same = std::equal(
        real.steps[rank].begin(), real.steps[rank].end(), schedule.steps[rank].begin(),
        schedule.steps[rank].end(),
        [](const SimulatedStep& step, const Step& planned) { return step.step == planned; });
    MT_CHECK(is_same, "rank ", rank, " did not take the steps of ", name_of(schedule.kind));
  }
}

// By message, when it was sent: a step that took longer than on average did so before it sent.
std::vector<double> times_sent(const Schedule& schedule, const Simulation& real,
                               const CostModel& costs) {
  std::vector<double> times(num_places(schedule), 0.0);
  for (size_t r = 0; r < real.steps.size(); ++r) {
    const int rank = static_cast<int>(r);
    for (const SimulatedStep& step : real.steps[r]) {
      const StepCost cost = costs.step(rank, step.step);
      const auto note = [&](const Action& action, double sent) {
        const auto message = made_by(schedule.placement, rank, action);
        if (!message) return;
        times[place_of(*message, schedule.num_micro_batches)] =
            std::max(step.begin + sent, step.end - (cost.duration - sent));
      };
      note(step.step.action, cost.action_sent);
      if (step.step.beside) note(*step.step.beside, cost.beside_sent);
    }
  }
  return times;
}

std::optional<StepGap> largest_gap(const Schedule& schedule, const Simulation& real,
                                   const CostModel& costs) {
  const std::vector<double> sent = times_sent(schedule, real, costs);
  std::optional<StepGap> largest;
  for (size_t r = 0; r < real.steps.size(); ++r) {
    const int rank = static_cast<int>(r);
    double ready = 0;
    for (const SimulatedStep& step : real.steps[r]) {
      for (const Action& action : actions_of(step.step)) {
        const auto message = needed_by(schedule.placement, rank, action);
        if (message) ready = std::max(ready, sent[place_of(*message, schedule.num_micro_batches)]);
      }
      const double waited = std::max(0.0, step.begin - ready);
      const double longer = waited + step.end - step.begin - costs.step(rank, step.step).duration;
      if (longer > (largest ? largest->longer : 0.0))
        largest = StepGap{rank, step.step, longer, std::min(waited, longer)};
      ready = step.end;
    }
  }
  return largest;
}

std::string milliseconds(double seconds) {
  return formatted("%.4g ms", 1e3 * seconds);
}

}  // namespace

MeasuredStep simulate_measured(const Schedule& schedule,
                               std::vector<std::vector<SimulatedStep>> measured) {
  MeasuredStep result;
  result.begin = first_begin(measured);
  result.real = real_simulation(std::move(measured), result.begin);
  check_same_steps(schedule, result.real);
  const MeasuredCosts costs(schedule, result.real.steps);
  result.simulated = simulate(schedule, costs);
  result.largest = largest_gap(schedule, result.real, costs);
  return result;
}

std::string describe(const MeasuredStep& step) {
  std::string text =
      concat("simulated from its own mean times: ", milliseconds(step.simulated.makespan),
             " instead of ", milliseconds(step.real.makespan));
  if (!step.largest) return text;
  const StepGap& gap = *step.largest;
  return concat(text, "; largest gap: ", describe(gap.step), " on rank ", gap.rank, " took ",
                milliseconds(gap.longer), " longer, ", milliseconds(gap.waited), " of it waiting");
}

}  // namespace moetron
