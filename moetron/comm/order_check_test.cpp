// Logs of the fake backend that are in order, and one of each kind that is not.
#include "moetron/comm/order_check.h"

#include <functional>
#include <gmock/gmock.h>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace moetron {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<CommLog> record(int size, const std::function<void(Communicator&)>& rank_main) {
  std::vector<CommLog> logs;
  for (int rank = 0; rank < size; ++rank) {
    auto log = std::make_shared<CommLog>();
    const auto world = make_fake_world(rank, size, log);
    rank_main(*world);
    logs.push_back(*log);
  }
  return logs;
}

at::Tensor floats(int64_t count) {
  return at::ones({count});
}

void expect_fault(const std::vector<CommLog>& logs, OrderFault::Kind kind,
                  const ::testing::Matcher<const std::string&>& message) {
  const std::optional<OrderFault> fault = check_order(logs);
  ASSERT_TRUE(fault.has_value());
  EXPECT_EQ(fault->kind, kind) << fault->message;
  EXPECT_THAT(fault->message, message);
}

TEST(OrderCheckTest, AcceptsRowsColumnsRaggedExchangesAndBatchedMessages) {
  const std::vector<CommLog> logs = record(6, [](Communicator& world) {
    const int rank = world.rank();
    const int first = rank / 3 * 3;
    const auto row = world.subgroup({first, first + 1, first + 2}, "row");
    const auto column = world.subgroup({rank % 3, rank % 3 + 3}, "column");
    for (int step = 0; step < 3; ++step) {
      row->all_gather(floats(12), floats(4)).wait();
      const std::vector<int64_t> to = {rank % 3, 1, 2};
      const std::vector<int64_t> from = {rank % 3, rank % 3, rank % 3};
      row->all_to_all_v(floats(3 * (rank % 3)), floats(rank % 3 + 3), from, to).wait();
      column->all_reduce(floats(5)).wait();
      world.group_begin();
      Work sent = world.send(floats(7), (rank + 1) % 6, 2);
      Work received = world.recv(floats(7), (rank + 5) % 6, 2);
      world.group_end();
      sent.wait();
      received.wait();
      world.broadcast(floats(1), 4).wait();
      world.barrier();
    }
  });
  const std::optional<OrderFault> fault = check_order(logs);
  EXPECT_FALSE(fault.has_value()) << fault->message;
}

TEST(OrderCheckTest, NamesOperationsThatAreSwappedOrMissing) {
  const auto swapped = record(4, [](Communicator& world) {
    const int first = world.rank() / 2 * 2;
    const auto pair = world.subgroup({first, first + 1}, "pair");
    pair->barrier();
    if (world.rank() == 3) pair->all_reduce(floats(2)).wait();
    pair->all_gather(floats(8), floats(4)).wait();
    if (world.rank() != 3) pair->all_reduce(floats(2)).wait();
  });
  expect_fault(swapped, OrderFault::Kind::kSequence,
               "operation 1 of group \"pair\" (ranks 2, 3) is all_gather of 32 bytes on rank 2, "
               "but all_reduce of 8 bytes on rank 3");
  const auto missing = record(3, [](Communicator& world) {
    if (world.rank() != 1) world.all_reduce(floats(2)).wait();
  });
  expect_fault(
      missing, OrderFault::Kind::kSequence,
      AllOf(HasSubstr("is all_reduce of 8 bytes on rank 0"), HasSubstr("nothing on rank 1")));
}

TEST(OrderCheckTest, NamesSizesAndRootsThatDiffer) {
  const auto sizes = record(3, [](Communicator& world) {
    world.barrier();
    world.all_reduce(floats(world.rank() == 2 ? 3 : 2)).wait();
  });
  expect_fault(sizes, OrderFault::Kind::kSequence,
               AllOf(StartsWith("operation 1 of group \"world\""),
                     HasSubstr("of 8 bytes on rank 0"), HasSubstr("of 12 bytes on rank 2")));
  const auto roots =
      record(2, [](Communicator& world) { world.broadcast(floats(2), world.rank()).wait(); });
  expect_fault(roots, OrderFault::Kind::kSequence,
               AllOf(HasSubstr("from rank 0 on rank 0"), HasSubstr("from rank 1 on rank 1")));
}

TEST(OrderCheckTest, NamesMessagesWithoutTheirOtherEnd) {
  const auto exchange = [](int num_recvs, int tag, int64_t count) {
    return record(2, [=](Communicator& world) {
      for (int i = 0; i < 2 && world.rank() == 0; ++i) world.send(floats(4), 1, 3).wait();
      for (int i = 0; i < num_recvs && world.rank() == 1; ++i) {
        world.recv(floats(count), 0, tag).wait();
      }
    });
  };
  EXPECT_FALSE(check_order(exchange(2, 3, 4)).has_value());
  expect_fault(exchange(1, 3, 4), OrderFault::Kind::kMessage,
               AllOf(StartsWith("message 1 from rank 0 to rank 1 with tag 3 of group \"world\""),
                     HasSubstr("rank 1 does not receive it")));
  expect_fault(exchange(3, 3, 4), OrderFault::Kind::kMessage,
               AllOf(StartsWith("message 2 from rank 0"), HasSubstr("rank 0 does not send it")));
  expect_fault(exchange(2, 1, 4), OrderFault::Kind::kMessage, HasSubstr("with tag 1"));
  expect_fault(exchange(2, 3, 5), OrderFault::Kind::kMessage,
               HasSubstr("sent with 16 bytes and awaited with 20"));
}

TEST(OrderCheckTest, FindsACycleBetweenTwoGroups) {
  const auto logs = record(2, [](Communicator& world) {
    const auto a = world.split(0, world.rank(), "a");
    const auto b = world.split(0, world.rank(), "b");
    (world.rank() == 0 ? a : b)->all_reduce(floats(2)).wait();
    (world.rank() == 0 ? b : a)->all_reduce(floats(2)).wait();
  });
  expect_fault(logs, OrderFault::Kind::kCycle,
               AllOf(HasSubstr("rank 0 issues operation 0 (all_reduce) of group \"a\" (ranks 0, 1) "
                               "before operation 0 (all_reduce) of group \"b\""),
                     HasSubstr("rank 1 issues operation 0 (all_reduce) of group \"b\" (ranks 0, 1) "
                               "before operation 0 (all_reduce) of group \"a\"")));
}

TEST(OrderCheckTest, FindsACycleThroughThreeGroupsAndAMessage) {
  // Each pair of neighbours in a ring of three begins with the group on its right.
  const auto ring = record(3, [](Communicator& world) {
    const int rank = world.rank();
    const auto right = world.subgroup({rank, (rank + 1) % 3}, concat("pair", rank));
    const auto left = world.subgroup({(rank + 2) % 3, rank}, concat("pair", (rank + 2) % 3));
    right->barrier();
    left->barrier();
  });
  expect_fault(ring, OrderFault::Kind::kCycle,
               AllOf(HasSubstr("\"pair0\""), HasSubstr("\"pair1\""), HasSubstr("\"pair2\"")));
  const auto message = record(2, [](Communicator& world) {
    if (world.rank() == 0) world.send(floats(1), 1).wait();
    world.barrier();
    if (world.rank() == 1) world.recv(floats(1), 0).wait();
  });
  expect_fault(message, OrderFault::Kind::kCycle,
               AllOf(HasSubstr("message 0 from rank 0 to rank 1"), HasSubstr("(barrier)")));
}

TEST(OrderCheckTest, MessagesToEachOtherMustStartTogether) {
  const auto exchange = [](bool together) {
    return record(2, [=](Communicator& world) {
      if (together) world.group_begin();
      Work sent = world.send(floats(1), 1 - world.rank());
      Work received = world.recv(floats(1), 1 - world.rank());
      if (together) world.group_end();
    });
  };
  EXPECT_FALSE(check_order(exchange(true)).has_value());
  expect_fault(exchange(false), OrderFault::Kind::kCycle, HasSubstr("message 0 from rank 1"));
}

// Two neighbours of a pipeline: each awaits what the other sends, on a link for each direction.
TEST(OrderCheckTest, AMessageHoldsUpWhatFollowsTheWaitForIt) {
  const auto exchange = [](bool waits_first) {
    return record(2, [=](Communicator& world) {
      const auto down = world.subgroup({0, 1}, "down"), up = world.subgroup({1, 0}, "up");
      const bool is_upper = world.rank() == 0;
      Communicator& in = is_upper ? *up : *down;
      Communicator& out = is_upper ? *down : *up;
      Work received = in.recv(floats(1), 0);
      if (waits_first) received.wait();
      out.send(floats(1), 1);
      received.wait();
      world.barrier();
    });
  };
  const auto fault = check_order(exchange(false));
  EXPECT_FALSE(fault.has_value()) << fault->message;
  expect_fault(exchange(true), OrderFault::Kind::kCycle,
               AllOf(HasSubstr("group \"down\""), HasSubstr("group \"up\"")));
}

TEST(OrderCheckTest, SumsTheBytesThatGoToOthers) {
  const auto logs = record(4, [](Communicator& world) {
    const int first = world.rank() / 2 * 2;
    const auto pair = world.subgroup({first, first + 1}, "pair");
    world.all_reduce(floats(8)).wait();                 // 2 * 3 / 4 * 32
    world.all_reduce(floats(4)).wait();                 // 2 * 3 / 4 * 16
    world.reduce_scatter(floats(2), floats(8)).wait();  // 3 * 8
    pair->all_gather(floats(6), floats(3)).wait();      // 12
    const std::vector<int64_t> to = {2, 3};
    const std::vector<int64_t> from =
        world.rank() % 2 ? std::vector<int64_t>{3, 3} : std::vector<int64_t>{2, 2};
    pair->all_to_all_v(at::ones({from[0] + from[1], 5}), at::ones({5, 5}), from, to).wait();
    world.broadcast(floats(1), 2).wait();
    if (world.rank() == 3) world.send(floats(9), 0).wait();
    if (world.rank() == 0) world.recv(floats(9), 3).wait();
    world.barrier();
  });
  EXPECT_FALSE(check_order(logs).has_value());
  EXPECT_EQ(sum_bytes_sent(logs[0], "world", "all_reduce"), 72);
  EXPECT_EQ(sum_bytes_sent(logs[1], "world", "reduce_scatter"), 24);
  EXPECT_EQ(sum_bytes_sent(logs[1], "pair", "all_gather"), 12);
  EXPECT_EQ(sum_bytes_sent(logs[0], "pair", "all_to_all_v"), 60);  // 3 rows
  EXPECT_EQ(sum_bytes_sent(logs[3], "pair", "all_to_all_v"), 40);  // 2 rows
  EXPECT_EQ(sum_bytes_sent(logs[2], "world", "broadcast"), 12);
  EXPECT_EQ(sum_bytes_sent(logs[1], "world", "broadcast"), 0);
  EXPECT_EQ(sum_bytes_sent(logs[3], "world", "send"), 36);
  EXPECT_EQ(sum_bytes_sent(logs[3], "pair"), 52);
  const std::vector<CommVolume> volumes = sum_volumes(logs[0]);
  ASSERT_GE(volumes.size(), 2u);
  EXPECT_EQ(volumes[0].operation, "all_reduce");
  EXPECT_EQ(volumes[0].num_operations, 2);
  EXPECT_EQ(volumes[0].bytes_sent, 72);
  EXPECT_EQ(volumes[1].operation, "reduce_scatter");
}

}  // namespace
}  // namespace moetron
