#include "moetron/schedule/drawing.h"

#include <cstdlib>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"

namespace moetron {
namespace {

class Drawing : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("moetron_drawing_" + std::to_string(::getpid()));
};

struct Simulated {
  Schedule schedule;
  Simulation simulation;
};

Simulated simulated(ScheduleKind kind, int ranks, int micro_batches) {
  Schedule schedule = make_schedule({kind, ranks, micro_batches});
  Simulation simulation = simulate(schedule, UnitCosts(schedule.placement, 0));
  return {std::move(schedule), std::move(simulation)};
}

// The time that the bars cover, those of a block once.
double covered(const Timeline& timeline) {
  double sum = 0;
  for (const Bar& bar : timeline.bars)
    sum += (bar.end - bar.begin) * (bar.place == BarPlace::kWhole ? 1 : 0.5);
  return sum;
}

TEST_F(Drawing, TimelineHoldsEveryStepOnce) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    const auto [schedule, simulation] = simulated(kind, 4, 12);
    const Timeline timeline = timeline_of(schedule, simulation, "units");
    EXPECT_NEAR(covered(timeline), 4 * simulation.makespan * (1 - simulation.bubble_fraction), 1e-9)
        << name_of(kind);
    int num_forwards = 0;
    for (const Bar& bar : timeline.bars) num_forwards += bar.kind == BarKind::kForward;
    EXPECT_EQ(num_forwards, 12 * schedule.placement.num_stages()) << name_of(kind);
  }
}

TEST_F(Drawing, BlocksAreTwoHalves) {
  Simulated run = simulated(ScheduleKind::k1F1B, 1, 1);
  const Action forward{ActionKind::kForward, 1, 5};
  const Action weights{ActionKind::kBackwardWeight, 0, 3};
  run.simulation.steps = {{{{forward, weights}, 2, 6}, {{weights, {}}, 6, 6}}};
  const Timeline timeline = timeline_of(run.schedule, run.simulation, "s");
  EXPECT_EQ(timeline.unit, "s");
  ASSERT_EQ(timeline.bars.size(), 2u) << "what takes no time is left out";
  const Bar& upper = timeline.bars[0];
  const Bar& lower = timeline.bars[1];
  EXPECT_EQ(upper.kind, BarKind::kForward);
  EXPECT_EQ(upper.place, BarPlace::kUpperHalf);
  EXPECT_EQ(upper.chunk, 1);
  EXPECT_EQ(upper.label, "5");
  EXPECT_EQ(lower.kind, BarKind::kBackwardWeight);
  EXPECT_EQ(lower.place, BarPlace::kLowerHalf);
  EXPECT_EQ(lower.label, "3");
  for (const Bar& bar : timeline.bars) {
    EXPECT_EQ(bar.begin, 2);
    EXPECT_EQ(bar.end, 6);
  }
}

TEST_F(Drawing, DrawsASchedule) {
  if (std::system("command -v gnuplot > /dev/null 2>&1") != 0) GTEST_SKIP() << "no gnuplot here";
  const auto [schedule, simulation] = simulated(ScheduleKind::kDualPipeV, 4, 12);
  draw_simulation(folder_ / "a.svg", schedule, simulation, "units");
  const std::string svg = read_file(folder_ / "a.svg");
  EXPECT_NE(svg.find("dualpipev, 4 ranks, 12 micro-batches: 78 units, 7.7 % bubble"),
            std::string::npos);
  EXPECT_NE(svg.find("rank 3"), std::string::npos);
}

TEST_F(Drawing, TracesASchedule) {
  const auto [schedule, simulation] = simulated(ScheduleKind::kDualPipeV, 2, 4);
  write_simulation_trace(folder_ / "a.json", schedule, simulation, "units");
  const Json trace = read_json(folder_ / "a.json");
  double end = 0;
  for (const Json& event : trace.at("traceEvents"))
    if (event.at("ph") == "X")
      end = std::max(end, event.at("ts").get<double>() + event.at("dur").get<double>());
  EXPECT_DOUBLE_EQ(end, simulation.makespan * 1e6);
}

TEST_F(Drawing, RefusesAnotherSchedulesSimulation) {
  const Simulated two = simulated(ScheduleKind::k1F1B, 2, 4);
  const Simulated four = simulated(ScheduleKind::k1F1B, 4, 4);
  EXPECT_THROW(timeline_of(two.schedule, four.simulation, "units"), InternalError);
}

TEST_F(Drawing, ARealStepHasItsSimulationBelowIt) {
  if (std::system("command -v gnuplot > /dev/null 2>&1") != 0) GTEST_SKIP() << "no gnuplot here";
  const Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 2, 6});
  const auto steps = simulate(schedule, UnitCosts(schedule.placement, 0)).steps;
  draw_measured_step(folder_ / "both.svg", schedule, simulate_measured(schedule, steps));
  const std::string svg = read_file(folder_ / "both.svg");
  for (const char* row : {">rank 0<", ">rank 1<", ">on paper<"})
    EXPECT_NE(svg.find(row), std::string::npos) << row;
}

}  // namespace
}  // namespace moetron
