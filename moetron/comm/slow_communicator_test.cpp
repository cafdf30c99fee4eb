#include "moetron/comm/slow_communicator.h"

#include <chrono>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/comm/thread_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

void run_slow_ranks(int size, const LinkSpeed& speed,
                    const std::function<void(Communicator& world)>& rank_main) {
  const auto world = make_thread_world(size, std::chrono::minutes(5));
  run_ranks_with(
      size, [&](int rank) { return slow_down(join_thread_world(world, rank), speed); }, rank_main);
}

double seconds_of(const std::function<void()>& what) {
  const auto begin = std::chrono::steady_clock::now();
  what();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// 100 floats at 1600 bytes a second: so long that a busy machine's pauses do not matter beside it.
constexpr LinkSpeed kSlow{.bytes_per_second = 1600};
constexpr double kSeconds = 0.25;

TEST(SlowCommunicator, AMessageArrivesItsCostAfterItWasSent) {
  run_slow_ranks(2, kSlow, [](Communicator& world) {
    const at::Tensor message = at::full({100}, world.rank() == 0 ? 7.0 : 0.0, at::kFloat);
    if (world.rank() == 0) {
      EXPECT_LT(seconds_of([&] { world.send(message, 1); }), kSeconds) << "issuing waits";
    } else {
      EXPECT_GE(seconds_of([&] { world.recv(message, 0).wait(); }), 0.9 * kSeconds);
      EXPECT_EQ(message.sum().item<float>(), 700);
    }
  });
}

TEST(SlowCommunicator, ALinkCarriesOneAtATimeAndLinksAreIndependent) {
  run_slow_ranks(2, kSlow, [](Communicator& world) {
    const auto other = world.split(0, world.rank(), "other");
    const at::Tensor values = at::ones({3, 100});  // of two ranks each sends 100 elements
    std::vector<Work> works;
    world.barrier();
    const double in_row = seconds_of([&] {
      for (int i = 0; i < 3; ++i) works.push_back(world.all_reduce(values[i]));
      for (Work& work : works) work.wait();
    });
    EXPECT_GE(in_row, 2.9 * kSeconds);
    EXPECT_TRUE(at::equal(values, at::full({3, 100}, 2.0)));
    world.barrier();
    const double side_by_side = seconds_of([&] {
      works = {world.all_reduce(values[0]), other->all_reduce(values[1])};
      for (Work& work : works) work.wait();
    });
    EXPECT_GE(side_by_side, 0.9 * kSeconds);
    EXPECT_LT(side_by_side, in_row);
  });
}

TEST(SlowCommunicator, JitterChangesNoResult) {
  run_slow_ranks(3, {.latency = 1e-4, .jitter = 2e-3, .seed = 5}, [](Communicator& world) {
    const auto pair = world.split(world.rank() == 2 ? -1 : 0, world.rank(), "pair");
    for (int i = 0; i < 20; ++i) {
      const at::Tensor sum = at::full({2}, world.rank() + i, at::kLong);
      Work reduced = world.all_reduce(sum);
      if (pair) {
        const at::Tensor mine = at::full({1}, 10 * i + pair->rank(), at::kLong);
        const at::Tensor theirs = at::empty({1}, at::kLong);
        pair->send(mine, 1 - pair->rank());
        pair->recv(theirs, 1 - pair->rank()).wait();
        EXPECT_EQ(theirs.item<int64_t>(), 10 * i + 1 - pair->rank());
      }
      reduced.wait();
      EXPECT_EQ(sum[0].item<int64_t>(), 3 + 3 * i);
    }
  });
}

TEST(SlowCommunicator, AFailureReachesWaitersWithRankAndPhase) {
  run_slow_ranks(2, {.latency = 1e-3}, [](Communicator& world) {
    world.set_phase(concat("phase of ", world.rank()));
    if (world.rank() == 0) return world.abort("broken on purpose");
    const at::Tensor values = at::ones({4});
    try {
      world.all_reduce(values).wait();
      ADD_FAILURE() << "rank 1 went on";
    } catch (const CommError& error) {
      const std::string text = error.what();
      EXPECT_EQ(error.failed_rank(), 0);
      EXPECT_NE(text.find("rank 1 in phase \"phase of 1\""), std::string::npos) << text;
      EXPECT_NE(text.find("rank 0 in phase \"phase of 0\": broken on purpose"), std::string::npos)
          << text;
    }
  });
}

}  // namespace
}  // namespace moetron
