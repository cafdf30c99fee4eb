// A stop is asked of one rank, or by a file, and takes effect on all.
#include "moetron/train/stop.h"

#include <csignal>
#include <fstream>
#include <mutex>
#include <set>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class StopTest : public ::testing::Test {
 protected:
  StopTest() { fs::create_directories(folder_); }
  ~StopTest() override { fs::remove_all(folder_); }

  // What each of three ranks is told, which must be the same. `failing`: whose data failed.
  StopReason reason(const StopRequest& stop, int failing = -1) {
    std::mutex mutex;
    std::set<StopReason> told;
    run_ranks(3, [&](Communicator& world) {
      const StopReason mine = stop.agreed(world, world.rank() == failing);
      const std::lock_guard lock(mutex);
      told.insert(mine);
    });
    EXPECT_EQ(told.size(), 1u) << "the ranks differ";
    return *told.begin();
  }
  bool agreed(const StopRequest& stop) { return reason(stop) == StopReason::kAsked; }

  fs::path folder_ = fs::path(testing::TempDir()) / ("moetron_stop_" + std::to_string(::getpid()));
};

TEST_F(StopTest, NobodyAskedNobodyStops) {
  EXPECT_FALSE(agreed(StopRequest(folder_)));
  EXPECT_FALSE(agreed(StopRequest("")));
}

TEST_F(StopTest, AFileAsksUntilItIsCleared) {
  const StopRequest stop(folder_);
  std::ofstream(folder_ / "stop").put('\n');
  EXPECT_TRUE(agreed(stop));
  EXPECT_TRUE(agreed(stop));
  stop.clear_file();
  EXPECT_FALSE(agreed(stop));
  EXPECT_FALSE(fs::exists(folder_ / "stop"));
}

TEST_F(StopTest, OfTheTimeOneRankTellsAll) {
  const StopRequest stop(folder_);
  run_ranks(3, [&](Communicator& world) {
    EXPECT_EQ(stop.agreed(world, false, world.rank() == 1), StopReason::kTimeIsUp);
  });
  std::ofstream(folder_ / "stop").put('\n');
  run_ranks(3, [&](Communicator& world) {
    EXPECT_EQ(stop.agreed(world, false, true), StopReason::kAsked);
  });
}

TEST_F(StopTest, EitherSignalAsksOnceForAll) {
  for (const int signal : {SIGTERM, SIGUSR1}) {
    const StopRequest stop("");
    EXPECT_FALSE(agreed(stop)) << "an earlier request counts no more";
    std::raise(signal);
    std::raise(signal);  // a launcher forwards what the scheduler has sent already
    EXPECT_TRUE(agreed(stop));
  }
}

// More urgent than what somebody asked for.
TEST_F(StopTest, DataThatFailsOnOneRankStopsAll) {
  const StopRequest stop(folder_);
  for (const int rank : {0, 2}) EXPECT_EQ(reason(stop, rank), StopReason::kDataFailed);
  std::ofstream(folder_ / "stop").put('\n');
  EXPECT_EQ(reason(stop, 1), StopReason::kDataFailed);
  EXPECT_EQ(reason(stop), StopReason::kAsked);
}

}  // namespace
}  // namespace moetron
