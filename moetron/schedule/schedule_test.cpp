#include "moetron/schedule/schedule.h"

#include <algorithm>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/schedule/simulate.h"
#include "moetron/schedule/validate_schedule.h"

namespace moetron {
namespace {

constexpr ScheduleKind kKinds[] = {ScheduleKind::k1F1B, ScheduleKind::kInterleaved,
                                   ScheduleKind::kZbH1, ScheduleKind::kZbV,
                                   ScheduleKind::kDualPipeV};

TEST(Schedule, EveryListIsValidOrRefused) {
  int num_valid = 0;
  for (const ScheduleKind kind : kKinds) {
    for (int ranks = 1; ranks <= 16; ++ranks) {
      for (int micro_batches = 1; micro_batches <= 4 * ranks + 3; ++micro_batches) {
        SCOPED_TRACE(concat(name_of(kind), " P=", ranks, " M=", micro_batches));
        ASSERT_NO_THROW(validate_schedule(make_forward_schedule(kind, ranks, micro_batches)));
        try {
          const Schedule schedule = make_schedule(kind, ranks, micro_batches);
          ASSERT_NO_THROW(validate_schedule(schedule));
          ++num_valid;
        } catch (const ConfigError&) {
          const bool is_v = kind == ScheduleKind::kZbV || kind == ScheduleKind::kDualPipeV;
          const bool is_refused_rightly =
              (is_v && micro_batches < 2 * ranks) ||
              (kind == ScheduleKind::kInterleaved && micro_batches % ranks != 0);
          ASSERT_TRUE(is_refused_rightly);
        }
      }
    }
  }
  EXPECT_GT(num_valid, 1500);
}

struct Published {
  ScheduleKind kind;
  int ranks;
  int micro_batches;
  double makespan;
  int peak;  // of the rank that holds most
};

// The unit times that a simulator other than ours gave for these schedules.
TEST(Schedule, UnitTimesAndPeaksArePublishedOnes) {
  const Published table[] = {
      {ScheduleKind::k1F1B, 2, 4, 30, 4},
      {ScheduleKind::k1F1B, 4, 19, 132, 8},
      {ScheduleKind::k1F1B, 8, 24, 186, 16},
      {ScheduleKind::kInterleaved, 2, 4, 27, 5},
      {ScheduleKind::kInterleaved, 4, 8, 57, 11},
      {ScheduleKind::kInterleaved, 4, 12, 81, 11},
      {ScheduleKind::kInterleaved, 8, 24, 165, 23},
      {ScheduleKind::kZbH1, 2, 11, 68, 4},
      {ScheduleKind::kZbH1, 4, 8, 54, 8},
      {ScheduleKind::kZbH1, 8, 35, 224, 16},
      {ScheduleKind::kZbV, 2, 4, 25, 4},
      {ScheduleKind::kZbV, 4, 12, 75, 8},
      {ScheduleKind::kZbV, 8, 35, 217, 16},
      {ScheduleKind::kDualPipeV, 2, 4, 26, 5},
      {ScheduleKind::kDualPipeV, 2, 11, 68, 5},
      {ScheduleKind::kDualPipeV, 4, 8, 54, 9},
      {ScheduleKind::kDualPipeV, 4, 19, 120, 9},
      {ScheduleKind::kDualPipeV, 8, 16, 110, 17},
      {ScheduleKind::kDualPipeV, 8, 35, 224, 17},
  };
  for (const Published& row : table) {
    SCOPED_TRACE(concat(name_of(row.kind), " P=", row.ranks, " M=", row.micro_batches));
    const Schedule schedule = make_schedule(row.kind, row.ranks, row.micro_batches);
    const Simulation simulation = simulate_unit_costs(schedule);
    EXPECT_EQ(simulation.makespan, row.makespan);
    EXPECT_EQ(
        *std::max_element(simulation.peak_activations.begin(), simulation.peak_activations.end()),
        row.peak);
    EXPECT_NEAR(simulation.bubble_fraction, 1 - 6 * row.micro_batches / row.makespan, 1e-12);
  }
}

TEST(Schedule, ARefusalNamesTheNumberThatWorks) {
  EXPECT_THAT([] { make_schedule(ScheduleKind::kDualPipeV, 4, 7); },
              testing::ThrowsMessage<ConfigError>(testing::HasSubstr("at least 8 micro-batches")));
  EXPECT_THAT([] { make_schedule(ScheduleKind::kInterleaved, 4, 6); },
              testing::ThrowsMessage<ConfigError>(testing::HasSubstr("that works is 8")));
  EXPECT_THAT([] { parse_schedule_kind("gpipe"); },
              testing::ThrowsMessage<ConfigError>(testing::HasSubstr("zb-v, dualpipev")));
}

Schedule some_schedule() {
  return make_schedule(ScheduleKind::kDualPipeV, 4, 9);
}

TEST(Validator, CatchesADroppedWeightGradient) {
  Schedule schedule = some_schedule();
  schedule.steps[2].pop_back();
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("rank 2 leaves")));
}

TEST(Validator, CatchesWeightGradientsOutOfOrder) {
  Schedule schedule = make_schedule(ScheduleKind::kZbH1, 4, 9);
  StepList& list = schedule.steps[3];
  std::swap(list[list.size() - 1], list[list.size() - 2]);
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("is next")));
}

TEST(Validator, CatchesSwappedSends) {
  Schedule schedule = some_schedule();
  std::swap(schedule.steps[0][1], schedule.steps[0][2]);  // F0(1), F0(2)
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("in the order")));
}

TEST(Validator, CatchesADeadlock) {
  Schedule schedule = make_schedule(ScheduleKind::k1F1B, 2, 3);
  std::swap(schedule.steps[0][1], schedule.steps[0][2]);  // B0(0) before F0(1)
  std::swap(schedule.steps[1][1], schedule.steps[1][2]);  // F0(1) before B0(0)
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("waits for good")));
}

TEST(Validator, CatchesABackwardBeforeItsForward) {
  Schedule schedule = make_schedule(ScheduleKind::k1F1B, 1, 2);
  std::swap(schedule.steps[0][0], schedule.steps[0][1]);
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("too early")));
}

TEST(Validator, CatchesABlockOfOneMicroBatch) {
  Schedule schedule = make_schedule(ScheduleKind::k1F1B, 1, 2);
  StepList& list = schedule.steps[0];  // F0(0), B0(0), ...
  list[0].beside = list[1].action;
  list.erase(list.begin() + 1);
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("a block of one")));
}

TEST(Validator, CatchesAPeakAboveTheDeclaredOne) {
  Schedule schedule = some_schedule();
  schedule.declared_peak[1] -= 1;
  EXPECT_THAT([&] { validate_schedule(schedule); },
              testing::ThrowsMessage<InternalError>(testing::HasSubstr("declares")));
}

}  // namespace
}  // namespace moetron
