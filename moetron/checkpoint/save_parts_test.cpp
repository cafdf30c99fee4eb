// Plan, snapshot and write apart: as a save in the background needs them.
#include <functional>
#include <future>
#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/layouts_fixture.h"
#include "moetron/checkpoint/save_snapshot.h"
#include "moetron/checkpoint/write_checkpoint.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::Each;
using testing::HasSubstr;

constexpr int kNumRanks = 4;

// A training step, as far as a save can see it.
void change(const CheckpointContent& content) {
  for (const NamedSlice& slice : content.weights) slice.view.add_(3);
  for (const NamedSlice& slice : content.states) slice.view.mul_(-2);
}

class SaveParts : public testing::Test {
 protected:
  // What one rank writes after `num_changes` changes.
  std::map<std::string, std::string> files_after(int num_changes) {
    const fs::path save = folder_.path() / concat("alone_", num_changes);
    const auto content = layouts_content(Layout::kReplicas, Layout::kReplicas, 0, 1);
    for (int i = 0; i < num_changes; ++i) change(content);
    return read_tree(save_checkpoint(save, 1, content, nullptr, kSmallShards));
  }

  static CheckpointContent content_of(Layout layout, int rank) {
    return layouts_content(layout, Layout::kStretch, rank, kNumRanks);
  }

  TemporaryFolder folder_{"save_parts_test"};
  fs::path save_ = folder_.path() / "save";
};

TEST_F(SaveParts, ACopyKeepsTheValuesOfItsMoment) {
  for (const Layout layout : kLayouts) {
    run_ranks(kNumRanks, [&](Communicator& world) {
      const CheckpointContent content = content_of(layout, world.rank());
      const SavePlan plan = plan_save(content, &world, kSmallShards);
      SaveSnapshot snapshot;
      snapshot.copy(plan, content);
      change(content);
      write_checkpoint(save_, 1, plan, snapshot, &world);
    });
    EXPECT_TRUE(read_tree(save_ / "step_0000001") == files_after(0)) << static_cast<int>(layout);
  }
}

TEST_F(SaveParts, AWriteGoesOnBesideTraining) {
  run_ranks(kNumRanks, [&](Communicator& world) {
    const auto exchange = world.split(0, world.rank(), "save");
    const CheckpointContent content = content_of(Layout::kRows, world.rank());
    const SavePlan plan = plan_save(content, &world, kSmallShards);
    SaveSnapshot snapshot;
    snapshot.copy(plan, content);
    auto written = std::async(std::launch::async, [&] {
      return write_checkpoint(save_, 1, plan, snapshot, exchange.get());
    });
    // Ranks that are at different places of their writes meet in the training group.
    at::Tensor sum;
    for (int step = 0; step < 200; ++step) {
      change(content);
      sum = at::full({3}, step);
      world.all_reduce(sum).wait();
    }
    EXPECT_EQ(written.get(), save_ / "step_0000001");
    EXPECT_TRUE((sum == 199 * kNumRanks).all().item<bool>());
  });
  EXPECT_TRUE(read_tree(save_ / "step_0000001") == files_after(0));
}

TEST_F(SaveParts, APlanAndACopysMemoryServeEverySave) {
  run_ranks(kNumRanks, [&](Communicator& world) {
    const CheckpointContent content = content_of(Layout::kExperts, world.rank());
    const SavePlan plan = plan_save(content, &world, kSmallShards);
    SaveSnapshot snapshot;
    std::vector<const void*> memory;
    for (const int64_t step : {1, 2}) {
      EXPECT_TRUE(plan_fits(plan, content, &world));
      snapshot.copy(plan, content);
      memory.push_back(snapshot.packed(plan, plan.block(0)).storage().data());
      write_checkpoint(save_, step, plan, snapshot, &world);
      change(content);
    }
    EXPECT_EQ(memory[0], memory[1]);
    snapshot.borrow(plan, content);
    write_checkpoint(save_, 3, plan, snapshot, &world);
  });
  for (const int num_changes : {0, 1, 2}) {
    auto want = files_after(num_changes);
    auto found = read_tree(save_ / concat("step_000000", num_changes + 1));
    want.erase("manifest.json");  // it holds the step
    found.erase("manifest.json");
    EXPECT_TRUE(found == want) << num_changes;
  }
}

TEST_F(SaveParts, ReplicasAreCopiedOnce) {
  uint64_t tensors = 0;
  for (const WholeTensors& all : {layouts_weights(), layouts_states()}) {
    for (const auto& [name, tensor] : all) tensors += tensor.nbytes();
  }
  std::vector<uint64_t> copied(kNumRanks);
  run_ranks(kNumRanks, [&](Communicator& world) {
    const auto content =
        layouts_content(Layout::kReplicas, Layout::kReplicas, world.rank(), kNumRanks);
    copied[static_cast<size_t>(world.rank())] =
        plan_save(content, &world, kSmallShards).bytes_given();
  });
  EXPECT_EQ(copied[0] + copied[1] + copied[2] + copied[3], tensors);
}

// Whether all ranks still find the plan good after rank 2's content was changed.
bool still_fits(const std::function<void(CheckpointContent&)>& alter) {
  std::vector<int> fits(kNumRanks);
  std::vector<std::string> refused(kNumRanks, "no error");
  run_ranks(kNumRanks, [&](Communicator& world) {
    const auto rank = static_cast<size_t>(world.rank());
    CheckpointContent content =
        layouts_content(Layout::kRows, Layout::kStretch, world.rank(), kNumRanks);
    const SavePlan plan = plan_save(content, &world, kSmallShards);
    if (rank == 2) alter(content);
    fits[rank] = plan_fits(plan, content, &world);
    SaveSnapshot snapshot;
    try {
      snapshot.borrow(plan, content);
    } catch (const InternalError& error) {
      refused[rank] = error.what();
    }
  });
  EXPECT_THAT(fits, Each(fits[0]));
  if (fits[0] == 1) {
    EXPECT_THAT(refused, Each("no error"));
  } else {
    EXPECT_THAT(refused[2], HasSubstr("than its save was planned for"));
  }
  return fits[0] == 1;
}

TEST_F(SaveParts, APlanIsForOneLayout) {
  EXPECT_TRUE(still_fits([](CheckpointContent&) {}));
  EXPECT_TRUE(still_fits([](CheckpointContent& content) {
    content.trainer = "{\"step\": 2}\n";
    for (NamedSlice& slice : content.weights) slice.view = slice.view.clone();
  }));
  EXPECT_FALSE(still_fits([](CheckpointContent& content) { content.states.clear(); }));
  EXPECT_FALSE(still_fits([](CheckpointContent& content) {
    content.weights.front().view = content.weights.front().view.to(at::kDouble);
  }));
  EXPECT_FALSE(still_fits([](CheckpointContent& content) {
    std::swap(content.weights.front(), content.weights.back());
  }));
  EXPECT_FALSE(still_fits([](CheckpointContent& content) {
    content = layouts_content(Layout::kColumns, Layout::kStretch, 2, kNumRanks);
  }));
}

TEST_F(SaveParts, AWriteNeedsItsOwnSnapshotAndRanks) {
  const auto message_of_write = [&](const SavePlan& plan, const SaveSnapshot& snapshot,
                                    Communicator* exchange) -> std::string {
    try {
      write_checkpoint(save_, 1, plan, snapshot, exchange);
    } catch (const InternalError& error) {
      return error.what();
    }
    return "no error";
  };
  std::vector<std::string> without_snapshot(2), other_ranks(2);
  run_ranks(2, [&](Communicator& world) {
    const int rank = world.rank();
    const auto place = static_cast<size_t>(rank);
    const auto content = layouts_content(Layout::kRows, Layout::kRows, rank, 2);
    const SavePlan plan = plan_save(content, &world, kSmallShards);
    SaveSnapshot snapshot;
    if (rank == 0) snapshot.copy(plan, content);
    without_snapshot[place] = message_of_write(plan, snapshot, &world);
    snapshot.copy(plan, content);
    const auto turned = world.split(0, -rank, "turned");
    other_ranks[place] = message_of_write(plan, snapshot, turned.get());
  });
  EXPECT_THAT(without_snapshot, Each(HasSubstr("taken by another plan")));
  EXPECT_THAT(other_ranks, Each(HasSubstr("planned for rank 1 of 2 is written by rank 0 of 2")));
  EXPECT_FALSE(fs::exists(save_));
}

}  // namespace
}  // namespace moetron
