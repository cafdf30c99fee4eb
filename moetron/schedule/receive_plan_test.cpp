#include "moetron/schedule/receive_plan.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

bool makes(const Schedule& schedule, int rank, const Step& step, const Message& message) {
  for (const Action& action : actions_of(step)) {
    const auto made = made_by(schedule.placement, rank, action);
    if (made && *made == message) return true;
  }
  return false;
}

// Every wait of a host for all that its rank has begun ends without what the host does later: ranks
// that take a step only when all receives begun before it have come get through. (A kernel that is
// loaded waits so.)
bool all_waits_end(const Schedule& schedule, const ReceivePlan& plan) {
  std::vector<size_t> done(schedule.steps.size(), 0);
  std::vector<std::vector<Message>> awaited(schedule.steps.size());
  const auto is_sent = [&](const Message& message) {
    const int from = sender(schedule.placement, message);
    const StepList& list = schedule.steps[static_cast<size_t>(from)];
    return std::any_of(list.begin(), list.begin() + static_cast<long>(done[from]),
                       [&](const Step& step) { return makes(schedule, from, step, message); });
  };
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t rank = 0; rank < schedule.steps.size(); ++rank) {
      if (done[rank] == schedule.steps[rank].size()) continue;
      for (const Message& message : plan[rank][done[rank]]) awaited[rank].push_back(message);
      if (!std::all_of(awaited[rank].begin(), awaited[rank].end(), is_sent)) continue;
      awaited[rank].clear();
      ++done[rank];
      moved = true;
    }
  }
  for (size_t rank = 0; rank < schedule.steps.size(); ++rank) {
    if (done[rank] < schedule.steps[rank].size()) return false;
  }
  return true;
}

void expect_waits_end(const Schedule& schedule) {
  EXPECT_TRUE(all_waits_end(schedule, make_receive_plan(schedule)))
      << name_of(schedule.kind) << ", " << schedule.steps.size() << " ranks, "
      << schedule.num_micro_batches << " micro-batches";
}

TEST(ReceivePlan, NothingBegunWaitsForWhatItsRankDoesLater) {
  for (const auto& [name, kind, has_blocks] : kSchedules) {
    for (const int ranks : {1, 2, 3, 4, 8}) {
      for (const int micro_batches : {2 * ranks, 3 * ranks, 4 * ranks + 3}) {
        if (kind == ScheduleKind::kInterleaved && micro_batches % ranks != 0) continue;
        expect_waits_end(make_schedule({kind, ranks, micro_batches}));
        expect_waits_end(make_forward_schedule({kind, ranks, micro_batches}));
      }
    }
  }
}

TEST(ReceivePlan, WhatBeginsTooEarlyWaitsForGood) {
  const Schedule schedule = make_schedule({ScheduleKind::k1F1B, 2, 4});
  ReceivePlan plan = make_receive_plan(schedule);
  for (auto& begun : plan) {
    for (size_t i = 1; i < begun.size(); ++i) {
      begun[0].insert(begun[0].end(), begun[i].begin(), begun[i].end());
      begun[i].clear();
    }
  }
  EXPECT_FALSE(all_waits_end(schedule, plan));
}

TEST(ReceivePlan, HasEveryMessageOnceBeforeItsUse) {
  const Schedule schedule = make_schedule({ScheduleKind::kDualPipeV, 4, 9});
  const ReceivePlan plan = make_receive_plan(schedule);
  for (int rank = 0; rank < 4; ++rank) {
    const auto& begun = plan[static_cast<size_t>(rank)];
    size_t num_begun = 0;
    for (const auto& messages : begun) num_begun += messages.size();
    size_t num_needed = 0;
    const StepList& list = schedule.steps[static_cast<size_t>(rank)];
    for (size_t i = 0; i < list.size(); ++i) {
      for (const Action& action : actions_of(list[i])) {
        const auto needed = needed_by(schedule.placement, rank, action);
        if (!needed || sender(schedule.placement, *needed) == rank) continue;
        ++num_needed;
        EXPECT_TRUE(std::any_of(begun.begin(), begun.begin() + static_cast<long>(i) + 1,
                                [&](const std::vector<Message>& messages) {
                                  return std::find(messages.begin(), messages.end(), *needed) !=
                                         messages.end();
                                }))
            << describe(action);
      }
    }
    EXPECT_EQ(num_begun, num_needed);
  }
}

}  // namespace
}  // namespace moetron
