#include "moetron/schedule/schedule.h"

#include <chrono>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/schedule/costs.h"
#include "moetron/schedule/message.h"
#include "moetron/schedule/overlapped.h"
#include "moetron/schedule/simulate.h"
#include "moetron/schedule/validate_schedule.h"

namespace moetron {
namespace {

// Blocks hide what travels, deadlock nowhere and hold no more.
TEST(OverlappedNeighbours, AreBlocksThatHideCommunication) {
  for (const int ranks : {1, 2, 4, 7}) {
    for (const int chunks : {1, 2, 3}) {
      if (ranks > 1 && chunks == 1) continue;
      const ScheduleRequest request{
          .kind = chunks == 1 ? ScheduleKind::k1F1B : ScheduleKind::kInterleaved,
          .num_ranks = ranks,
          .num_micro_batches = 4 * ranks,
          .loop_chunks = std::max(chunks, 2)};
      const Schedule lone = make_schedule(request);
      Schedule overlapped = lone;
      overlap_neighbours(overlapped);
      const UnitCosts costs(lone.placement, 0.8);
      EXPECT_LT(simulate(overlapped, costs).makespan, simulate(lone, costs).makespan)
          << ranks << " ranks, " << chunks << " chunks";
      const std::vector<int> held = peak_activations(lone), now = peak_activations(overlapped);
      for (size_t rank = 0; rank < held.size(); ++rank) EXPECT_LE(now[rank], held[rank] + 2);
    }
  }
  for (const ScheduleKind kind : {ScheduleKind::kDualPipeV, ScheduleKind::k1F1B}) {
    Schedule other = make_schedule({kind, 2, 8});
    EXPECT_THROW(overlap_neighbours(other), ConfigError);
  }
}

using testing::Each;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr ScheduleKind kKinds[] = {ScheduleKind::k1F1B, ScheduleKind::kInterleaved,
                                   ScheduleKind::kZbH1, ScheduleKind::kZbV,
                                   ScheduleKind::kDualPipeV};

Simulation unit_simulation(const Schedule& schedule, double communication) {
  return simulate(schedule, UnitCosts(schedule.placement, communication));
}

bool runs(ScheduleKind kind, int ranks, int micro_batches) {
  const bool is_v = kind == ScheduleKind::kZbV || kind == ScheduleKind::kDualPipeV;
  if (kind == ScheduleKind::kInterleaved) return micro_batches % ranks == 0;
  return !is_v || micro_batches >= 2 * ranks;
}

TEST(Schedule, EveryListIsValidOrRefused) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    if (kind == ScheduleKind::kDualPipeVPlus) continue;  // a search, with tests of its own
    for (int ranks = 1; ranks <= 16; ++ranks) {
      for (int micro_batches = 1; micro_batches <= 4 * ranks + 3; ++micro_batches) {
        SCOPED_TRACE(concat(name_of(kind), " P=", ranks, " M=", micro_batches));
        ASSERT_NO_THROW(validate_schedule(make_forward_schedule({kind, ranks, micro_batches})));
        if (runs(kind, ranks, micro_batches)) {
          ASSERT_NO_THROW(validate_schedule(make_schedule({kind, ranks, micro_batches})));
        } else {
          ASSERT_THROW(make_schedule({kind, ranks, micro_batches}), ConfigError);
        }
      }
    }
  }
}

// More chunks a rank: a smaller bubble for more activations (Narayanan et al. 2021, section 2.2).
TEST(Schedule, ALoopOfManyChunksIsValidAndItsBubbleShrinks) {
  for (int ranks = 1; ranks <= 8; ++ranks) {
    for (const int turns : {1, 2, 3, 5}) {
      const int micro_batches = turns * ranks;
      for (int chunks = 2; chunks <= 6; ++chunks) {
        SCOPED_TRACE(concat("P=", ranks, " M=", micro_batches, " chunks=", chunks));
        const ScheduleRequest request{.kind = ScheduleKind::kInterleaved,
                                      .num_ranks = ranks,
                                      .num_micro_batches = micro_batches,
                                      .loop_chunks = chunks};
        ASSERT_NO_THROW(validate_schedule(make_forward_schedule(request)));
        const Schedule schedule = make_schedule(request);
        ASSERT_NO_THROW(validate_schedule(schedule));
        // Of an F, I and W of 2 / chunks each: the work, and the bubble of (P - 1) chunks.
        EXPECT_NEAR(unit_simulation(schedule, 0).makespan,
                    6.0 * micro_batches + 6.0 / chunks * (ranks - 1), 1e-9);
      }
    }
  }
}

// Simulated times without and with exposed communication (0.5 of an F) by a program other than
// ours: the grid of the schedules' survey, whose closed forms are checked below.
struct Times {
  double plain;
  double exposed;
};
struct GridRow {
  int ranks;
  int micro_batches;
  Times of_1f1b;
  Times of_interleaved;
  Times of_zb_h1;
  Times of_zb_v;
  Times of_dualpipev;
};
constexpr Times kRefused = {0, 0};
constexpr GridRow kGrid[] = {
    {2, 4, {30, 40}, {27, 36}, {26, 36}, {25, 33.5}, {26, 31.5}},
    {2, 11, {72, 96}, kRefused, {68, 92}, {67, 89.5}, {68, 73.5}},
    {4, 8, {66, 88}, {57, 76}, {54, 76}, {51, 68.5}, {54, 64.5}},
    {4, 12, {90, 120}, {81, 108}, {78, 108}, {75, 100.5}, {78, 88.5}},
    {4, 19, {132, 176}, kRefused, {120, 164}, {117, 156.5}, {120, 130.5}},
    {8, 16, {138, 184}, {117, 156}, {110, 156}, {103, 138.5}, {110, 130.5}},
    {8, 24, {186, 248}, {165, 220}, {158, 220}, {151, 202.5}, {158, 178.5}},
    {8, 35, {252, 336}, kRefused, {224, 308}, {217, 290.5}, {224, 244.5}},
};

TEST(Schedule, UnitTimesArePublishedOnes) {
  for (const GridRow& row : kGrid) {
    const Times* times[] = {&row.of_1f1b, &row.of_interleaved, &row.of_zb_h1, &row.of_zb_v,
                            &row.of_dualpipev};
    for (int i = 0; i < 5; ++i) {
      if (times[i]->plain == 0) continue;
      SCOPED_TRACE(concat(name_of(kKinds[i]), " P=", row.ranks, " M=", row.micro_batches));
      const Schedule schedule = make_schedule({kKinds[i], row.ranks, row.micro_batches});
      const Simulation plain = unit_simulation(schedule, 0);
      EXPECT_EQ(plain.makespan, times[i]->plain);
      EXPECT_NEAR(plain.bubble_fraction, 1 - 6 * row.micro_batches / plain.makespan, 1e-12);
      EXPECT_EQ(unit_simulation(schedule, 0.5).makespan, times[i]->exposed);
    }
  }
}

TEST(Schedule, UnitTimesFollowTheClosedForms) {
  for (const int ranks : {2, 4, 8}) {
    for (const int micro_batches : {2 * ranks, 2 * ranks + 1, 3 * ranks, 4 * ranks + 3}) {
      const int below = ranks - 1;
      const auto expect = [&](ScheduleKind kind, double plain, double exposed) {
        SCOPED_TRACE(concat(name_of(kind), " P=", ranks, " M=", micro_batches));
        if (!runs(kind, ranks, micro_batches)) return;
        const Schedule schedule = make_schedule({kind, ranks, micro_batches});
        EXPECT_EQ(unit_simulation(schedule, 0).makespan, 6 * micro_batches + plain);
        EXPECT_EQ(unit_simulation(schedule, 0.5).makespan, exposed);
      };
      expect(ScheduleKind::k1F1B, 6 * below, 8 * micro_batches + 8 * below);
      expect(ScheduleKind::kInterleaved, 3 * below, 8 * micro_batches + 4 * below);
      expect(ScheduleKind::kZbH1, 2 * below, 8 * micro_batches + 4 * below);
      expect(ScheduleKind::kZbV, below, 8 * micro_batches + 1.5 * below);
      expect(ScheduleKind::kDualPipeV, 2 * below, 6 * micro_batches + 4.5 * ranks - 1.5);
    }
  }
}

// A block that hides communication well costs 2, as if it were F and B in parallel.
class ShorterBlocks final : public CostModel {
 public:
  explicit ShorterBlocks(const Placement& placement) : units_(placement, 0) {}
  StepCost step(int rank, const Step& step) const override {
    StepCost cost = units_.step(rank, step);
    if (cost.duration == 3) cost.duration = cost.action_sent = cost.beside_sent = 2;
    return cost;
  }
  double transfer(const Message&) const override { return 0; }

 private:
  UnitCosts units_;
};

TEST(Schedule, DualPipeVWithBlocksOfTwoTakesThePublishedTime) {
  for (const int ranks : {2, 4, 8}) {
    for (const int micro_batches : {2 * ranks, 2 * ranks + 1, 3 * ranks, 4 * ranks + 3}) {
      SCOPED_TRACE(concat("P=", ranks, " M=", micro_batches));
      const Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, ranks, micro_batches});
      EXPECT_EQ(simulate(schedule, ShorterBlocks(schedule.placement)).makespan,
                4 * micro_batches + 3 * ranks);
    }
  }
}

TEST(Schedule, PeaksArePublishedOnes) {
  for (const int ranks : {2, 4, 8}) {
    SCOPED_TRACE(ranks);
    const auto peaks = [&](ScheduleKind kind) {
      return unit_simulation(make_schedule({kind, ranks, 3 * ranks}), 0).peak_activations;
    };
    EXPECT_EQ(peaks(ScheduleKind::k1F1B).front(), 2 * ranks);
    EXPECT_EQ(peaks(ScheduleKind::k1F1B).back(), 2);
    EXPECT_EQ(peaks(ScheduleKind::kInterleaved).front(), 3 * ranks - 1);
    EXPECT_THAT(peaks(ScheduleKind::kZbH1), Each(2 * ranks));
    EXPECT_THAT(peaks(ScheduleKind::kZbV), Each(2 * ranks));
    EXPECT_THAT(peaks(ScheduleKind::kDualPipeV), Each(2 * ranks + 1));
  }
}

// The reference's counts of each phase at P=4, on its first and last rank.
TEST(Schedule, DualPipeVHasThePhasesOfItsReference) {
  const Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 4, 9});
  const auto text = [&](size_t rank) {
    std::string all;
    for (const Step& step : schedule.steps[rank]) all += describe(step) + " ";
    return all;
  };
  EXPECT_EQ(text(0),
            "F0(0) F0(1) F0(2) F0(3) F0(4) F0(5) F0(6) F1(0) "
            "I1(0) W1(0) F1(1) I1(1) W1(1) F1(2) I1(2) W1(2) F1(3) "
            "F0(7)&B1(3) F1(4)&B0(0) F0(8)&B1(4) F1(5)&B0(1) "
            "B1(5) F1(6)&B0(2) B1(6) F1(7)&B0(3) B1(7) F1(8)&B0(4) "
            "B1(8)&R1 I0(5) W0(5) I0(6) W0(6) I0(7) W0(7) I0(8) W0(8)&R0 ");
  EXPECT_EQ(text(3),
            "F0(0) F1(0) F0(1) F1(1) F0(2) F1(2) F0(3) F1(3) "
            "F0(4) B1(0) F1(4)&B0(0) F0(5)&B1(1) F1(5)&B0(1) F0(6)&B1(2) F1(6)&B0(2) "
            "F0(7)&B1(3) F1(7)&B0(3) F0(8)&B1(4) F1(8)&B0(4) "
            "B1(5) B0(5) B1(6) B0(6) I1(7) I0(7) I1(8) I0(8) W1(7) W0(7) W1(8)&R1 W0(8)&R0 ");
}

TEST(Schedule, EveryChunkIsReducedBehindItsLastWeightGradient) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    if (kind == ScheduleKind::kDualPipeVPlus) continue;  // a search, with tests of its own
    const Schedule schedule = make_schedule({kind, 4, 8});
    for (const StepList& list : schedule.steps) {
      int num_reductions = 0;
      for (const Step& step : list) {
        for (const Action& action : actions_of(step)) {
          num_reductions += action.kind == ActionKind::kReduce;
        }
      }
      EXPECT_EQ(num_reductions, schedule.placement.num_chunks()) << name_of(kind);
    }
    EXPECT_EQ(schedule.steps[1].back().beside->kind, ActionKind::kReduce) << name_of(kind);
  }
}

TEST(Schedule, ARefusalNamesTheNumberThatWorks) {
  EXPECT_THAT(([] {
                make_schedule({ScheduleKind::kDualPipeV, 4, 7});
              }),
              ThrowsMessage<ConfigError>(HasSubstr("at least 8 micro-batches")));
  EXPECT_THAT(([] {
                make_schedule({ScheduleKind::kInterleaved, 4, 6});
              }),
              ThrowsMessage<ConfigError>(HasSubstr("that works is 8")));
}

// The bound is loose, for sanitizers and busy machines: a list with steps in the square of their
// number would take minutes.
TEST(Schedule, ThousandsOfMicroBatchesOnManyRanksTakeMoments) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    if (kind == ScheduleKind::kDualPipeVPlus) continue;  // a search, with tests of its own
    const auto begin = std::chrono::steady_clock::now();
    const Schedule schedule = make_schedule({kind, 64, 4096});
    EXPECT_LT(unit_simulation(schedule, 0.5).bubble_fraction, 0.05);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(taken.count(), 60) << name_of(kind);
  }
}

}  // namespace
}  // namespace moetron
