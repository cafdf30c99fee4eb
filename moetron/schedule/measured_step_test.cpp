#include "moetron/schedule/measured_step.h"

#include <gmock/gmock.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using testing::HasSubstr;

Schedule schedule_of(ScheduleKind kind) {
  return make_schedule({kind, 2, 6});
}

std::vector<std::vector<SimulatedStep>> made_up(const Schedule& schedule) {
  return simulate(schedule, UnitCosts(schedule.placement, 0.5)).steps;
}

TEST(MeasuredStep, AStepWithoutDelaysIsItsOwnSimulation) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    const Schedule schedule = schedule_of(kind);
    auto steps = made_up(schedule);
    for (auto& of_rank : steps) {
      for (SimulatedStep& step : of_rank) {
        step.begin += 100;  // whatever the clock says
        step.end += 100;
      }
    }
    const MeasuredStep measured = simulate_measured(schedule, steps);
    EXPECT_EQ(measured.begin, 100) << name;
    EXPECT_NEAR(measured.real.makespan, measured.simulated.makespan, 1e-9) << name;
    EXPECT_TRUE(!measured.largest || measured.largest->longer < 1e-9) << name;
  }
}

// One step of rank 1 takes longer by as much.
class SlowStep final : public CostModel {
 public:
  SlowStep(const Placement& placement, const Step& slow, double by)
      : costs_(placement, 0.5), slow_(slow), by_(by) {}
  StepCost step(int rank, const Step& step) const override {
    StepCost cost = costs_.step(rank, step);
    if (rank != 1 || step != slow_) return cost;
    for (double* time : {&cost.duration, &cost.action_sent, &cost.beside_sent}) *time += by_;
    return cost;
  }
  double transfer(const Message&) const override { return 0; }

 private:
  UnitCosts costs_;
  Step slow_;
  double by_;
};

TEST(MeasuredStep, NamesWhoComputedLonger) {
  for (const ScheduleKind kind : {ScheduleKind::k1F1B, ScheduleKind::kDualPipeV}) {
    const Schedule schedule = schedule_of(kind);
    const Step slow = schedule.steps[1][4];  // others of its kind are before and behind it
    const MeasuredStep measured = simulate_measured(
        schedule, simulate(schedule, SlowStep(schedule.placement, slow, 50)).steps);
    ASSERT_TRUE(measured.largest);
    EXPECT_EQ(measured.largest->rank, 1);
    EXPECT_EQ(measured.largest->step, slow);
    EXPECT_GT(measured.largest->longer, 20);  // the mean of its kind is longer, too
    EXPECT_LT(measured.largest->waited, 1e-9);
    EXPECT_THAT(describe(measured), HasSubstr(concat("gap: ", describe(slow), " on rank 1 took ")));
  }
}

// Everything behind a moment comes later by as much.
void delay(std::vector<std::vector<SimulatedStep>>& steps, double from, double by) {
  for (auto& of_rank : steps) {
    for (SimulatedStep& step : of_rank) {
      if (step.begin < from) continue;
      step.begin += by;
      step.end += by;
    }
  }
}

TEST(MeasuredStep, NamesWhoWaited) {
  const Schedule schedule = schedule_of(ScheduleKind::k1F1B);
  auto steps = made_up(schedule);
  delay(steps, steps[1][4].begin, 50);
  const MeasuredStep measured = simulate_measured(schedule, steps);
  ASSERT_TRUE(measured.largest);
  EXPECT_NEAR(measured.largest->longer, 50, 8);
  EXPECT_NEAR(measured.largest->waited, measured.largest->longer, 1e-9);
  EXPECT_LT(measured.simulated.makespan + 40, measured.real.makespan);
}

TEST(MeasuredStep, OtherStepsThanTheSchedulesAreRefused) {
  const Schedule schedule = schedule_of(ScheduleKind::k1F1B);
  auto steps = made_up(schedule);
  std::swap(steps[0][1], steps[0][2]);
  if (steps[0][1].step == steps[0][2].step) FAIL();
  EXPECT_THROW(simulate_measured(schedule, steps), InternalError);
  steps.pop_back();
  EXPECT_THROW(simulate_measured(schedule, steps), InternalError);
}

}  // namespace
}  // namespace moetron
