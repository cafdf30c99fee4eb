#include "moetron/schedule/simulate.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/schedule/message.h"

namespace moetron {
namespace {

using testing::ElementsAre;

const Placement kV(Placement::Shape::kV, 2);
const Placement kStraight(Placement::Shape::kStraight, 2);

constexpr Action kForward = {ActionKind::kForward, 0, 1};
constexpr Action kBackward = {ActionKind::kBackward, 1, 0};
constexpr Action kInput = {ActionKind::kBackwardInput, 1, 0};
constexpr Action kWeight = {ActionKind::kBackwardWeight, 0, 0};
constexpr Action kHalf = {ActionKind::kBackwardWeight, 0, 0, Part::kFirstHalf};
constexpr Action kReduction = {ActionKind::kReduce, 1, 0};

struct Expected {
  double duration;
  double communication;
  double exposed;
};

void expect_cost(const Step& step, double communication, const Expected& expected) {
  SCOPED_TRACE(describe(step) + " with communication " + std::to_string(communication));
  for (const auto& [placement, units] : {std::pair{kV, 1}, std::pair{kStraight, 2}}) {
    const StepCost cost = UnitCosts(placement, communication).step(0, step);
    EXPECT_DOUBLE_EQ(cost.duration, units * expected.duration);
    EXPECT_DOUBLE_EQ(cost.communication, units * expected.communication);
    EXPECT_DOUBLE_EQ(cost.exposed, units * expected.exposed);
    EXPECT_DOUBLE_EQ(cost.action_sent, cost.duration);
    EXPECT_DOUBLE_EQ(cost.beside_sent, cost.duration);
  }
}

TEST(UnitCosts, AreThoseOfTheSurvey) {
  expect_cost({kForward, {}}, 0.25, {1.25, 0.25, 0.25});
  expect_cost({kInput, {}}, 0.25, {1.25, 0.25, 0.25});
  expect_cost({kBackward, {}}, 0.25, {2.25, 0.25, 0.25});
  expect_cost({kWeight, {}}, 0.25, {1, 0, 0});
  expect_cost({kHalf, {}}, 0.25, {0.5, 0, 0});
  expect_cost({kReduction, {}}, 0.25, {0, 0, 0});
  expect_cost({kBackward, kReduction}, 0.25, {2.25, 0.25, 0.25});
  expect_cost({kWeight, kReduction}, 0.25, {1, 0, 0});
  // What hides: a block hides both until they exceed its compute, a W what its action waits for.
  expect_cost({kForward, kBackward}, 0.5, {3, 1, 0});
  expect_cost({kForward, kBackward}, 2, {4, 4, 1});
  expect_cost({kForward, kWeight}, 0.25, {2, 0.25, 0});
  expect_cost({kForward, kHalf}, 0.75, {1.75, 0.75, 0.25});
  expect_cost({kInput, kHalf}, 0.5, {1.5, 0.5, 0});
}

// A transfer of 5, and outputs that leave before their step ends.
class SlowLinks final : public CostModel {
 public:
  StepCost step(int, const Step&) const override { return {10, 4, 10, 3, 2}; }
  double transfer(const Message&) const override { return 5; }
};

TEST(Simulate, MessagesTakeTheirTime) {
  const Simulation simulation =
      simulate(make_forward_schedule({ScheduleKind::k1F1B, 2, 2}), SlowLinks());
  EXPECT_EQ(simulation.steps[1][0].begin, 9);
  EXPECT_EQ(simulation.steps[1][1].begin, 19);
  EXPECT_EQ(simulation.makespan, 29);
  EXPECT_DOUBLE_EQ(simulation.bubble_fraction, 1 - 40.0 / 58);
  EXPECT_THAT(simulation.communication, ElementsAre(6, 6));
  EXPECT_THAT(simulation.exposed, ElementsAre(4, 4));
}

// Between the chunks of the last rank of a V nothing travels.
TEST(Simulate, AHandOverWithinARankTakesNone) {
  const Simulation simulation =
      simulate(make_forward_schedule({ScheduleKind::kDualPipeV, 1, 1}), SlowLinks());
  EXPECT_EQ(simulation.steps[0][1].begin, 10);
}

TEST(Simulate, AnActivationIsHeldThroughItsSecondHalfOfW) {
  constexpr Action kSecond = {ActionKind::kBackwardWeight, 0, 0, Part::kSecondHalf};
  constexpr Action kFirst = {ActionKind::kForward, 0, 0};
  constexpr Action kOwnInput = {ActionKind::kBackwardInput, 0, 0};
  const auto peak_of = [](const StepList& list) {
    const Placement alone(Placement::Shape::kStraight, 1);
    const Schedule schedule{ScheduleKind::kZbH1, alone, 2, {list}, {}};
    return simulate(schedule, UnitCosts(alone, 0)).peak_activations[0];
  };
  EXPECT_EQ(peak_of({{kFirst}, {kOwnInput}, {kHalf}, {kForward}, {kSecond}}), 4);
  EXPECT_EQ(peak_of({{kFirst}, {kOwnInput}, {kHalf}, {kSecond}, {kForward}}), 2);
  EXPECT_EQ(peak_of({{kFirst}, {kOwnInput}, {kHalf}, {kForward, kSecond}}), 4);
}

TEST(PeakHeld, WhatWeightGradientsWantIsHeldFromTheInputGradients) {
  const StepList list = {
      {{ActionKind::kForward, 0, 0}, {}},        {{ActionKind::kForward, 0, 1}, {}},
      {{ActionKind::kBackwardInput, 0, 0}, {}},  {{ActionKind::kBackwardInput, 0, 1}, {}},
      {{ActionKind::kBackwardWeight, 0, 0}, {}}, {{ActionKind::kBackwardWeight, 0, 1}, {}}};
  EXPECT_EQ(peak_held(list, {{5, 5}}), 10);
  EXPECT_EQ(peak_held(list, {{5, 7}}), 14) << "both wait for their W";
  EXPECT_EQ(peak_held(list, {{5, 2}}), 10) << "both were held before the first I";
  const StepList whole = {{{ActionKind::kForward, 0, 0}, {}}, {{ActionKind::kBackward, 0, 0}, {}}};
  EXPECT_EQ(peak_held(whole, {{5, 7}}), 5) << "a B is no I";
}

}  // namespace
}  // namespace moetron
