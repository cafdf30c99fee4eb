#include "moetron/schedule/dualpipev_plus.h"

#include <algorithm>
#include <gmock/gmock.h>
#include <utility>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/schedule/capped_list.h"
#include "moetron/schedule/simulate.h"
#include "moetron/schedule/validate_schedule.h"

namespace moetron {
namespace {

ScheduleRequest request_of(int num_ranks, int num_micro_batches, int cap, double communication) {
  return {ScheduleKind::kDualPipeVPlus, num_ranks, num_micro_batches, cap, communication};
}

int peak_of(const Schedule& schedule) {
  return *std::max_element(schedule.declared_peak.begin(), schedule.declared_peak.end());
}

double time_of(const Schedule& schedule, double communication) {
  return simulate(schedule, UnitCosts(schedule.placement, communication)).makespan;
}

double time_beside_dualpipev(const Schedule& schedule, double communication) {
  const Schedule pairs = make_schedule(
      {ScheduleKind::kDualPipeV, schedule.placement.num_ranks(), schedule.num_micro_batches});
  return time_of(schedule, communication) / time_of(pairs, communication);
}

bool has_block(const Schedule& schedule, ActionKind beside) {
  return std::any_of(schedule.steps.begin(), schedule.steps.end(), [&](const StepList& list) {
    return std::any_of(list.begin(), list.end(), [&](const Step& step) {
      return step.beside && step.beside->kind == beside;
    });
  });
}

// Caps and communication take turns along the grid, for a search takes its time.
TEST(DualPipeVPlus, ListsAreValid) {
  constexpr double kCommunications[] = {0, 0.25, 0.5, 0.75, 1};
  int turn = 0;
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const int micro_batches : {1, ranks + 1, 2 * ranks - 1, 2 * ranks, 4 * ranks + 3}) {
      const int caps[] = {0, 2, ranks + 1, ranks + 3, 2 * ranks + 1, 3 * ranks};
      const int cap = caps[turn % 6];
      const double communication = kCommunications[(turn + turn / 5) % 5];
      ++turn;
      SCOPED_TRACE(concat("P=", ranks, " M=", micro_batches, " cap=", cap, " e=", communication));
      const Schedule schedule =
          make_dualpipev_plus(request_of(ranks, micro_batches, cap, communication));
      ASSERT_NO_THROW(validate_schedule(schedule));
      ASSERT_LE(peak_of(schedule), cap == 0 ? 2 * ranks + 1 : cap);
    }
  }
}

TEST(DualPipeVPlus, ListsOfSixteenRanksAreValid) {
  for (const auto& [micro_batches, cap] : {std::pair{1, 2}, std::pair{35, 20}}) {
    SCOPED_TRACE(concat("M=", micro_batches, " cap=", cap));
    const Schedule schedule = make_dualpipev_plus(request_of(16, micro_batches, cap, 0.5));
    ASSERT_NO_THROW(validate_schedule(schedule));
    ASSERT_LE(peak_of(schedule), cap);
  }
}

TEST(DualPipeVPlus, HoldsLessThanDualPipeVInAboutItsTime) {
  struct Target {
    int ranks, micro_batches, peak;
  };
  for (const auto& [ranks, micro_batches, peak] :
       {Target{4, 64, 7}, Target{4, 256, 7}, Target{8, 128, 11}, Target{8, 256, 11}}) {
    SCOPED_TRACE(concat("P=", ranks, " M=", micro_batches));
    const Schedule schedule = make_dualpipev_plus(request_of(ranks, micro_batches, 0, 0.5));
    EXPECT_NO_THROW(validate_schedule(schedule));
    EXPECT_EQ(peak_of(schedule), peak);
    EXPECT_LE(time_beside_dualpipev(schedule, 0.5), 1.015);
  }
}

// Where W's do not hide all of the communication.
TEST(DualPipeVPlus, TakesThePairsOfDualPipeVWhereCommunicationIsLong) {
  const Schedule schedule = make_dualpipev_plus(request_of(4, 24, 0, 0.75));
  const Schedule pairs = make_schedule({ScheduleKind::kDualPipeV, 4, 24});
  for (size_t rank = 0; rank < 3; ++rank) {
    EXPECT_TRUE(schedule.steps[rank] == pairs.steps[rank]) << "rank " << rank;
  }
  // On the last rank one block more, which is faster.
  EXPECT_EQ(schedule.steps[3].size() + 1, pairs.steps[3].size());
  EXPECT_LT(time_beside_dualpipev(schedule, 0.75), 1);
  EXPECT_THAT(schedule.declared_peak, testing::Each(9));
  EXPECT_FALSE(has_block(schedule, ActionKind::kBackwardWeight));
  EXPECT_TRUE(
      has_block(make_dualpipev_plus(request_of(4, 24, 0, 0.5)), ActionKind::kBackwardWeight));
}

// Against the best lists that another search found with other rules, in time beside DualPipeV's.
TEST(DualPipeVPlus, ListsUnderACapAreAboutAsFastAsPublishedOnes) {
  struct Published {
    int ranks, micro_batches, cap;
    double communication, time;
  };
  constexpr double kAbout = 0.02;
  for (const Published& row : {Published{2, 8, 3, 0.5, 1.369}, Published{2, 8, 5, 0.75, 0.979},
                               Published{4, 16, 5, 0.5, 1.289}, Published{4, 16, 7, 0.5, 0.996},
                               Published{4, 16, 8, 0.5, 0.969}, Published{4, 48, 7, 0.75, 1.144},
                               Published{8, 32, 11, 0.5, 1.029}, Published{8, 32, 14, 0.5, 1.004},
                               Published{8, 32, 17, 0.5, 0.978}}) {
    SCOPED_TRACE(concat("P=", row.ranks, " M=", row.micro_batches, " cap=", row.cap));
    const Schedule schedule =
        make_dualpipev_plus(request_of(row.ranks, row.micro_batches, row.cap, row.communication));
    EXPECT_LE(peak_of(schedule), row.cap);
    EXPECT_LE(time_beside_dualpipev(schedule, row.communication), row.time + kAbout);
  }
}

TEST(DualPipeVPlus, IsTheSameEveryTime) {
  const ScheduleRequest request = request_of(4, 19, 6, 0.5);
  EXPECT_EQ(make_dualpipev_plus(request).steps, make_dualpipev_plus(request).steps);
}

TEST(DualPipeVPlus, RefusesWhatNoListReaches) {
  EXPECT_THAT([] { make_dualpipev_plus(request_of(4, 8, 1, 0.5)); },
              testing::ThrowsMessage<ConfigError>(
                  testing::HasSubstr("pipeline-activation-cap (1) must be at least 2")));
  EXPECT_THAT([] { make_schedule(request_of(4, 0, 0, 0.5)); },
              testing::ThrowsMessage<ConfigError>(
                  testing::HasSubstr("num-micro-batches (0) must be at least 1")));
}

// The list maker keeps time as the simulator does: else the search would prefer the wrong lists.
TEST(CappedList, TakesTheTimeSimulated) {
  constexpr int kRanks = 3;
  constexpr int kMicroBatches = 9;
  ListPolicy policy;
  policy.activation_cap = 5;
  policy.credits = {std::vector<int>{4, 3, 3}, {1, 2, 2}};
  policy.turns = {std::vector<double>(kRanks, 2), std::vector<double>(kRanks, 0),
                  std::vector<double>(kRanks, 3), std::vector<double>(kRanks, 1)};
  policy.window = 100;
  for (const bool has_pairs : {false, true}) {
    for (const int halves : {0, 1, 2}) {
      policy.has_pairs = has_pairs;
      policy.filling_halves.fill(halves);
      const CappedList list = make_capped_list(policy, kRanks, kMicroBatches, 0.75, true);
      const Schedule schedule{ScheduleKind::kDualPipeVPlus,
                              {Placement::Shape::kV, kRanks},
                              kMicroBatches,
                              list.steps,
                              {}};
      // The list maker also waits where it would send too early.
      EXPECT_LE(time_of(schedule, 0.75), list.makespan);
      EXPECT_NEAR(time_of(schedule, 0.75), list.makespan, 1);
      EXPECT_EQ(has_block(schedule, ActionKind::kBackward), has_pairs);
      EXPECT_EQ(has_block(schedule, ActionKind::kBackwardWeight), halves > 0);
    }
  }
}

}  // namespace
}  // namespace moetron
