#include "moetron/schedule/drawing.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/metrics/chrome_trace.h"
#include "moetron/metrics/gantt.h"

namespace moetron {
namespace {

BarKind bar_kind(ActionKind kind) {
  switch (kind) {
    case ActionKind::kForward:
      return BarKind::kForward;
    case ActionKind::kBackwardInput:
      return BarKind::kBackwardInput;
    case ActionKind::kBackwardWeight:
      return BarKind::kBackwardWeight;
    case ActionKind::kBackward:
      return BarKind::kBackward;
    case ActionKind::kReduce:
      return BarKind::kReduce;
  }
  throw InternalError("an action without a kind");
}

Bar bar_of(int rank, const Action& action, BarPlace place, const SimulatedStep& step) {
  Bar bar{rank, 0, bar_kind(action.kind), action.chunk, place, step.begin, step.end};
  if (action.kind != ActionKind::kReduce) bar.label = concat(action.micro_batch);
  return bar;
}

std::string title_of(const Schedule& schedule, const Simulation& simulation,
                     const std::string& unit) {
  char numbers[96];
  std::snprintf(numbers, sizeof(numbers), "%.5g %s, %.1f %% bubble", simulation.makespan,
                unit.c_str(), 100 * simulation.bubble_fraction);
  return concat(name_of(schedule.kind), ", ", schedule.placement.num_ranks(), " ranks, ",
                schedule.num_micro_batches, " micro-batches: ", numbers);
}

}  // namespace

Timeline timeline_of(const Schedule& schedule, const Simulation& simulation,
                     const std::string& unit) {
  MT_CHECK(schedule.steps.size() == simulation.steps.size(), "a simulation of ",
           simulation.steps.size(), " ranks for a schedule of ", schedule.steps.size());
  Timeline timeline{unit, {}};
  for (size_t rank = 0; rank < simulation.steps.size(); ++rank) {
    for (const SimulatedStep& step : simulation.steps[rank]) {
      if (step.end == step.begin) continue;
      const auto& beside = step.step.beside;
      timeline.bars.push_back(bar_of(static_cast<int>(rank), step.step.action,
                                     beside ? BarPlace::kUpperHalf : BarPlace::kWhole, step));
      if (beside)
        timeline.bars.push_back(
            bar_of(static_cast<int>(rank), *beside, BarPlace::kLowerHalf, step));
    }
  }
  return timeline;
}

void draw_simulation(const std::filesystem::path& path, const Schedule& schedule,
                     const Simulation& simulation, const std::string& unit) {
  draw_gantt(timeline_of(schedule, simulation, unit), path, title_of(schedule, simulation, unit));
}

void draw_measured_step(const std::filesystem::path& path, const Schedule& schedule,
                        const MeasuredStep& step) {
  Timeline both{"s", {}};
  const Timeline parts[] = {timeline_of(schedule, step.real, "s"),
                            timeline_of(schedule, step.simulated, "s")};
  for (int part = 0; part < 2; ++part) {
    for (Bar bar : parts[part].bars) {
      bar.rank = 2 * bar.rank + part;
      both.bars.push_back(std::move(bar));
    }
  }
  for (int rank = 0; rank < schedule.placement.num_ranks(); ++rank) {
    both.row_names.push_back(concat("rank ", rank));
    both.row_names.emplace_back("on paper");
  }
  draw_gantt(both, path,
             title_of(schedule, step.real, "s") +
                 formatted(", simulated: %.5g s", step.simulated.makespan));
}

void write_simulation_trace(const std::filesystem::path& path, const Schedule& schedule,
                            const Simulation& simulation, const std::string& unit) {
  write_timeline_trace(path, timeline_of(schedule, simulation, unit));
}

}  // namespace moetron
