#include "moetron/train/host_room.h"

#include <limits>

#include <gtest/gtest.h>

#include "moetron/comm/communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

TEST(HostRoom, RanksOfOneHostWantItsMemoryTogether) {
  const HostMemory ranks[] = {
      {"a", 40, 100}, {"b", 40, 130}, {"a", 50, 95}, {"b", 41, 130}, {"c", 5, 50}};
  run_ranks(5, [&](Communicator& world) {
    // "b" has 49 left, "c" 45, and "a", whose ranks looked at different moments, 5.
    EXPECT_EQ(tightest_host(ranks[world.rank()], world), (HostMemory{"a", 90, 95}));
  });
}

TEST(HostRoom, AHostThatDoesNotTellHasRoom) {
  constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();
  run_ranks(2, [&](Communicator& world) {
    const HostMemory found = tightest_host({"a", int64_t{1} << 40, kUnknown}, world);
    EXPECT_EQ(found, (HostMemory{"a", int64_t{2} << 40, kUnknown}));
  });
}

TEST(HostRoom, ThisHostHasMemory) {
  const HostMemory mine = this_host(7);
  EXPECT_FALSE(mine.host.empty());
  EXPECT_EQ(mine.needed, 7);
  EXPECT_GT(mine.available, 1'000'000);
}

}  // namespace
}  // namespace moetron
