// Saves beside training: the bits of a save that training waits for, whatever becomes of the
// tensors meanwhile, and failures that stay within the save.
#include "moetron/checkpoint/background_writer.h"

#include <chrono>
#include <gmock/gmock.h>
#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "moetron/base/error.h"
#include "moetron/checkpoint/checkpoint_fixture.h"
#include "moetron/checkpoint/collective.h"
#include "moetron/checkpoint/layouts_fixture.h"
#include "moetron/checkpoint/write_checkpoint.h"
#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::steady_clock;
using testing::HasSubstr;

// A training step, as far as a save can see it.
void change(const CheckpointContent& content) {
  for (const NamedSlice& slice : content.weights) slice.view.add_(3);
  for (const NamedSlice& slice : content.states) slice.view.mul_(-2);
}

BackgroundWriter::Write write_to(const fs::path& save, int64_t step) {
  return [save, step](const SavePlan& plan, const SaveSnapshot& snapshot, Communicator* exchange) {
    write_checkpoint(save, step, plan, snapshot, exchange);
  };
}

BackgroundWriter::Write fail_on(int rank, const std::string& message) {
  return [=](const SavePlan&, const SaveSnapshot&, Communicator* exchange) {
    on_all_ranks(exchange, [&] {
      MT_CHECK_CONFIG(exchange->rank() != rank, message);
      return 0;
    });
  };
}

struct Backend {
  const char* name;
  void (*run)(int size, const std::function<void(Communicator&)>& rank_main);
};

void run_on_threads(int size, const std::function<void(Communicator&)>& rank_main) {
  run_ranks(size, rank_main);
}

void run_on_gloo(int size, const std::function<void(Communicator&)>& rank_main) {
  if (size == 1) return run_ranks(size, rank_main);  // as a process alone has it
  const auto store = c10::make_intrusive<c10d::HashStore>();
  const auto join = [&](int rank) {
    GlooOptions options;
    options.store = store;
    options.rank = rank;
    options.size = size;
    options.timeout = options.join_timeout = minutes(5);
    return make_gloo_world(options);
  };
  run_ranks_with(size, join, rank_main);
}

class BackgroundWrites : public testing::TestWithParam<Backend> {
 protected:
  TemporaryFolder folder_{"background_writer_test"};
  fs::path save_ = folder_.path() / "save";
};
INSTANTIATE_TEST_SUITE_P(OnEach, BackgroundWrites,
                         testing::Values(Backend{"threads", run_on_threads},
                                         Backend{"gloo", run_on_gloo}),
                         [](const auto& test) { return std::string(test.param.name); });

TEST_P(BackgroundWrites, HaveTheBitsOfASaveThatTrainingWaitsFor) {
  for (const int num_ranks : {1, 2, 4}) {
    const fs::path waited = folder_.path() / concat("waited_", num_ranks);
    const fs::path beside = folder_.path() / concat("beside_", num_ranks);
    GetParam().run(num_ranks, [&](Communicator& world) {
      const CheckpointContent content =
          layouts_content(Layout::kRows, Layout::kStretch, world.rank(), num_ranks);
      const auto plan = std::make_shared<const SavePlan>(plan_save(content, &world, kSmallShards));
      BackgroundWriter writer(world);
      for (const int64_t step : {1, 2}) {
        SaveSnapshot snapshot;
        snapshot.borrow(*plan, content);
        write_checkpoint(waited, step, *plan, snapshot, &world);
        writer.start(plan, content, write_to(beside, step));
        // Ranks that are at different places of their writes meet in the training group.
        for (int i = 0; i < 100; ++i) {
          writer.hold_changes();
          change(content);
          const at::Tensor sum = at::full({3}, i);
          world.all_reduce(sum).wait();
          ASSERT_TRUE((sum == i * num_ranks).all().item<bool>());
        }
        EXPECT_EQ(writer.finish(), std::nullopt);
      }
    });
    for (const char* step : {"step_0000001", "step_0000002"}) {
      EXPECT_TRUE(read_tree(waited / step) == read_tree(beside / step)) << num_ranks << step;
    }
    EXPECT_FALSE(read_tree(waited / "step_0000001") == read_tree(waited / "step_0000002"));
  }
}

TEST_P(BackgroundWrites, AFailureEndsTheWriteAlone) {
  GetParam().run(2, [&](Communicator& world) {
    const CheckpointContent content =
        layouts_content(Layout::kRows, Layout::kRows, world.rank(), 2);
    const auto plan = std::make_shared<const SavePlan>(plan_save(content, &world, kSmallShards));
    BackgroundWriter writer(world);
    // All ranks learn of what one of them meets; a rank that breaks its group off learns alone.
    writer.start(plan, content, fail_on(1, "no space is left"));
    EXPECT_EQ(writer.finish(), "no space is left");
    writer.start(plan, content, [](const SavePlan&, const SaveSnapshot&, Communicator* exchange) {
      if (exchange->rank() == 0) exchange->abort("the wire is cut");
      exchange->barrier();
    });
    EXPECT_THAT(writer.finish().value_or("no error"), HasSubstr("the wire is cut"));
    const at::Tensor sum = at::ones({1});
    world.all_reduce(sum).wait();
    EXPECT_EQ(sum.item<float>(), 2);
    writer.renew_group();
    writer.start(plan, content, write_to(save_, 3));
    EXPECT_EQ(writer.finish(), std::nullopt);
    const at::Tensor again = at::ones({1});
    world.all_reduce(again).wait();
    EXPECT_EQ(again.item<float>(), 2);
  });
  check_checkpoint(save_ / "step_0000003");
}

TEST_P(BackgroundWrites, AnExceptionDoesNotHangOnAWriteThatWaitsForAPeer) {
  const auto begin = steady_clock::now();
  try {
    GetParam().run(2, [&](Communicator& world) {
      const CheckpointContent content =
          layouts_content(Layout::kRows, Layout::kRows, world.rank(), 2);
      const auto plan = std::make_shared<const SavePlan>(plan_save(content, &world, kSmallShards));
      BackgroundWriter writer(world);
      writer.start(plan, content, [](const SavePlan&, const SaveSnapshot&, Communicator* exchange) {
        if (exchange->rank() == 0) exchange->barrier();
      });
      throw InputError("training failed");
    });
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "training failed");
  }
  EXPECT_LT(steady_clock::now() - begin, minutes(2));  // not by the time-out
}

TEST(BackgroundWriter, TellsWhatAThreadThrows) {
  run_ranks(1, [&](Communicator& world) {
    const CheckpointContent content = layouts_content(Layout::kRows, Layout::kRows, 0, 1);
    const auto plan = std::make_shared<const SavePlan>(plan_save(content, &world, kSmallShards));
    BackgroundWriter writer(world);
    const auto failure_of = [&](const std::function<void()>& work) {
      writer.start(plan, content,
                   [=](const SavePlan&, const SaveSnapshot&, Communicator*) { work(); });
      EXPECT_TRUE(writer.is_busy());
      const auto failure = writer.finish();
      EXPECT_FALSE(writer.is_busy());
      return failure.value_or("no error");
    };
    EXPECT_EQ(failure_of([] {}), "no error");
    EXPECT_EQ(failure_of([] { throw std::runtime_error(""); }), "");
    EXPECT_THAT(failure_of([] { fs::remove_all("/proc/self/status"); }),
                HasSubstr("/proc/self/status"));
  });
}

}  // namespace
}  // namespace moetron
