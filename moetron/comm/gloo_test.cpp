// The gloo backend with ranks as threads over a store in memory: the bits of the thread backend,
// and failures that travel between ranks. comm_process_test.cpp does the same with processes.
#include <atomic>
#include <chrono>
#include <gmock/gmock.h>
#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/join_ranks.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

void run_gloo_ranks(int size, const std::function<void(Communicator&)>& rank_main,
                    milliseconds timeout = minutes(5)) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const auto join = [&](int rank) {
    GlooOptions options;
    options.store = store;
    options.rank = rank;
    options.size = size;
    options.timeout = timeout;
    options.join_timeout = minutes(5);
    return make_gloo_world(options);
  };
  run_ranks_with(size, join, rank_main);
}

at::Tensor contribution(int rank, int64_t count, at::ScalarType type) {
  const at::Tensor index = at::arange(count, at::kLong);
  const at::Tensor scrambled = (index * 7919 + rank * 104729 + 17).remainder(10007);
  if (!at::isFloatingType(type)) return scrambled.remainder(251).to(type);
  const at::Tensor scale = at::pow(10.0, (index + rank).remainder(5).to(at::kFloat) - 2);
  return ((scrambled.to(at::kFloat) / 5003 - 1) * scale).to(type);
}

// Runs every operation once and returns what this rank holds afterwards.
std::vector<at::Tensor> run_everything(Communicator& world, at::ScalarType type) {
  const int rank = world.rank();
  const int size = world.size();
  std::vector<at::Tensor> results;
  std::vector<Work> works;
  // One round and two; sizes that the ranks do not divide, fewer elements than ranks, none.
  for (int64_t count : {0, 1, 5000, 100003}) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
      results.push_back(contribution(rank, count, type));
      works.push_back(world.all_reduce(results.back(), op));
    }
  }
  results.push_back(at::empty({size * 1001}, type));
  works.push_back(world.all_gather(results.back(), contribution(rank, 1001, type)));
  results.push_back(at::empty({20011}, type));
  works.push_back(world.reduce_scatter(results.back(), contribution(rank, size * 20011, type)));
  for (int root = 0; root < size; ++root) {
    results.push_back(contribution(rank, 333, type));
    works.push_back(world.broadcast(results.back(), root));
  }
  std::vector<int64_t> sent;
  std::vector<int64_t> received;
  for (int r = 0; r < size; ++r) {
    sent.push_back((3 * rank + 5 * r) % 4);
    received.push_back((3 * r + 5 * rank) % 4);
  }
  const int64_t in_rows = std::accumulate(sent.begin(), sent.end(), int64_t{0});
  const int64_t out_rows = std::accumulate(received.begin(), received.end(), int64_t{0});
  results.push_back(at::empty({out_rows, 7}, type));
  works.push_back(world.all_to_all_v(
      results.back(), contribution(rank, in_rows * 7, type).view({in_rows, 7}), received, sent));
  for (size_t i = works.size(); i-- > 0;) works[i].wait();
  return results;
}

TEST(GlooTest, GivesTheBitsOfTheThreadBackend) {
  for (int size : {1, 2, 3, 4, 8}) {
    for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte}) {
      std::vector<std::vector<at::Tensor>> expected(size);
      run_ranks(size,
                [&](Communicator& world) { expected[world.rank()] = run_everything(world, type); });
      run_gloo_ranks(size, [&](Communicator& world) {
        const std::vector<at::Tensor> results = run_everything(world, type);
        for (size_t i = 0; i < results.size(); ++i) {
          EXPECT_TRUE(at::equal(results[i], expected[world.rank()][i]))
              << "result " << i << " of rank " << world.rank() << " of " << size;
        }
      });
    }
  }
}

TEST(GlooTest, MessagesMatchByTagAndPassCollectives) {
  run_gloo_ranks(3, [](Communicator& world) {
    const int next = (world.rank() + 1) % 3;
    const int previous = (world.rank() + 2) % 3;
    std::vector<Work> works;
    std::vector<at::Tensor> received;
    for (int i = 0; i < 6; ++i) {
      // Large ones wait for their receiver, small ones do not.
      const int64_t count = i < 3 ? 300000 : 3;
      works.push_back(world.send(at::full({count}, 100 * world.rank() + i, at::kLong), next, i));
    }
    works.push_back(world.send(at::empty({0}), next, 9));
    const at::Tensor sum = at::ones({50000});
    world.all_reduce(sum).wait();
    EXPECT_EQ(sum[49999].item<float>(), 3);
    for (int tag : {2, 0, 5, 1, 4, 3}) {
      received.push_back(at::empty({tag < 3 ? 300000 : 3}, at::kLong));
      works.push_back(world.recv(received.back(), previous, tag));
      EXPECT_NO_THROW(works.back().wait());
      EXPECT_EQ(received.back()[2].item<int64_t>(), 100 * previous + tag);
    }
    world.recv(at::empty({0}), previous, 9).wait();
    for (Work& work : works) work.wait();
    // One tag again and again keeps the order.
    works.clear();
    received.clear();
    for (int i = 0; i < 20; ++i) {
      works.push_back(world.send(at::full({4}, i, at::kLong), next, 1));
      received.push_back(at::empty({4}, at::kLong));
      works.push_back(world.recv(received.back(), previous, 1));
    }
    for (Work& work : works) work.wait();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(received[i][3].item<int64_t>(), i);
  });
}

// Nobody waits for a send, and its tensor is let go long before the receive is there.
TEST(GlooTest, ASendThatIsDroppedArrives) {
  constexpr int kMessages = 8;
  constexpr int64_t kElements = 200000;
  run_gloo_ranks(2, [&](Communicator& world) {
    if (world.rank() == 0) {
      for (int i = 0; i < kMessages; ++i) world.send(at::full({kElements}, i), 1);
      at::full({kElements}, -1);  // would take the memory of one that had been freed
    }
    world.barrier();
    for (int i = 0; world.rank() == 1 && i < kMessages; ++i) {
      const at::Tensor received = at::empty({kElements}, at::kLong);
      world.recv(received, 0).wait();
      EXPECT_TRUE(at::equal(received, at::full({kElements}, i))) << i;
    }
  });
}

TEST(GlooTest, SplitMakesIndependentGroups) {
  run_gloo_ranks(4, [](Communicator& world) {
    const int rank = world.rank();
    auto row = world.split(rank / 2, rank, "row");
    auto column = world.split(rank % 2, -rank, "column");
    auto alone = world.split(rank, 0, "alone");
    EXPECT_EQ(column->members(), (std::vector<int>{rank % 2 + 2, rank % 2}));
    for (int i = 0; i < 10; ++i) {
      const at::Tensor in_row = at::full({20000}, rank, at::kLong);
      const at::Tensor in_column = in_row.clone();
      const at::Tensor in_world = in_row.clone();
      const at::Tensor by_myself = in_row.clone();
      Work a = world.all_reduce(in_world);
      Work b = row->all_reduce(in_row);
      Work c = column->all_reduce(in_column);
      alone->all_reduce(by_myself).wait();
      c.wait();
      b.wait();
      a.wait();
      EXPECT_EQ(in_world[19999].item<int64_t>(), 6);
      EXPECT_EQ(in_row[0].item<int64_t>(), rank < 2 ? 1 : 5);
      EXPECT_EQ(in_column[0].item<int64_t>(), 2 * (rank % 2) + 2);
      EXPECT_EQ(by_myself[0].item<int64_t>(), rank);
    }
    world.barrier();
  });
}

TEST(GlooTest, AnExceptionPoisonsAllGroups) {
  std::vector<std::string> messages(4);
  const auto begin = steady_clock::now();
  try {
    run_gloo_ranks(4, [&](Communicator& world) {
      auto pair = world.split(world.rank() / 2, 0, "pair");
      PhaseScope phase(world, "step 7");
      if (world.rank() == 2) throw InputError("shard 3 is cut short");
      try {
        if (world.rank() == 0) pair->recv(at::zeros({4}), 1).wait();
        if (world.rank() == 3) world.all_reduce(at::zeros({4})).wait();
        // Rank 1 computes meanwhile, and learns of it at its next call.
        if (world.rank() == 1) {
          std::this_thread::sleep_for(seconds(2));
          world.barrier();
        }
        ADD_FAILURE() << "rank " << world.rank() << " did not notice";
      } catch (const CommError& error) {
        messages[world.rank()] = error.what();
        EXPECT_EQ(error.failed_rank(), 2);
        EXPECT_FALSE(error.first_to_notice());
        throw;
      }
    });
    FAIL() << "run_gloo_ranks returned";
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "shard 3 is cut short");
  }
  EXPECT_LT(steady_clock::now() - begin, minutes(2));  // not by the time-out
  const char* reason = "failed: rank 2 in phase \"step 7\": shard 3 is cut short";
  EXPECT_THAT(messages[0], AllOf(HasSubstr("recv in group \"pair\""), HasSubstr(reason)));
  EXPECT_THAT(messages[1], AllOf(HasSubstr("barrier in group \"world\""), HasSubstr(reason)));
  EXPECT_EQ(messages[3],
            concat("rank 3 in phase \"step 7\": all_reduce in group \"world\" ", reason));
}

TEST(GlooTest, ATimeoutNamesTheRankWaitedFor) {
  std::atomic<int> num_first = 0, num_told = 0;
  const auto rank_main = [&](Communicator& world) {
    world.set_phase("saving");
    if (world.rank() == 1) {
      // Alive, but busy elsewhere.
      while (num_told < 2) std::this_thread::sleep_for(milliseconds(10));
      return;
    }
    try {
      world.barrier();
    } catch (const CommError& error) {
      if (error.first_to_notice()) ++num_first;
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("barrier in group \"world\""), HasSubstr("in phase \"saving\""),
                        HasSubstr("imed out"), HasSubstr("waiting for rank 1")));
      ++num_told;
      throw;
    }
  };
  EXPECT_THROW(run_gloo_ranks(3, rank_main, milliseconds(2000)), CommError);
  EXPECT_EQ(num_first, 1);
}

TEST(GlooTest, RanksThatDoNotComeComeTwiceOrMiscountAreNamed) {
  const auto join = [](c10::intrusive_ptr<c10d::Store> store, int rank, int size) {
    GlooOptions options;
    options.store = std::move(store);
    options.rank = rank;
    options.size = size;
    options.join_timeout = milliseconds(300);
    try {
      make_gloo_world(options);
      return std::string("joined");
    } catch (const JoinRefused& error) {
      EXPECT_EQ(error.exit_code(), kExitConfig);
      return std::string(error.what());
    }
  };
  auto store = c10::make_intrusive<c10d::HashStore>();
  EXPECT_THAT(join(store, 2, 4), AllOf(HasSubstr("rank 2 waited 0.3"), HasSubstr("all of 4 ranks"),
                                       HasSubstr("rank 0, 1, 3 did not come")));
  EXPECT_THAT(join(store, 1, 4), HasSubstr("rank 2 waited"));  // who comes late hears it at once
  auto claimed = c10::make_intrusive<c10d::HashStore>();
  claimed->add("claim/2", 1);
  EXPECT_THAT(join(claimed, 2, 4), HasSubstr("two processes of one run claim to be rank 2 of 4"));
  auto larger = c10::make_intrusive<c10d::HashStore>();
  static_cast<c10d::Store&>(*larger).compareSet("size", "", "4\n2");
  EXPECT_THAT(join(larger, 1, 3), HasSubstr("rank 2 counts 4 ranks, rank 1 counts 3"));
}

// Ranks with what each of them greets with; how each of them ended.
std::vector<std::string> meet(const std::vector<std::string>& greetings) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  std::vector<std::string> ends(greetings.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < greetings.size(); ++rank) {
    threads.emplace_back([&, rank] {
      WorldOptions options;
      options.store = store;
      options.rank = static_cast<int>(rank);
      options.size = static_cast<int>(greetings.size());
      options.join_timeout = seconds(60);
      options.greeting = {greetings[rank], [](const auto& mine, const auto& other, int who) {
                            return mine == other ? ""
                                                 : concat(mine, " is not ", other, " of ", who);
                          }};
      try {
        if (greetings[rank] == "refuses") refuse_to_join(options, InputError("no file"));
        if (greetings[rank] != "refuses") join_ranks(options);
        ends[rank] = "joined";
      } catch (const JoinRefused& error) {
        EXPECT_TRUE(error.rank_zero_knows());
        ends[rank] = concat(error.exit_code(), " ", error.what());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return ends;
}

TEST(GlooTest, RanksCompareGreetingsBeforeTheyConnect) {
  EXPECT_EQ(meet({"a", "a", "a"}), (std::vector<std::string>{"joined", "joined", "joined"}));
  EXPECT_EQ(meet({"a", "a", "b"}), (std::vector<std::string>(3, "2 a is not b of 2")));
  // Nobody waits for one that cannot come; rank 0 adds in what it differs.
  EXPECT_EQ(meet({"a", "refuses"}),
            (std::vector<std::string>{"3 rank 1 cannot start: no file\na is not refuses of 1",
                                      "joined"}));
}

TEST(GlooTest, ASeparateWorldFailsAlone) {
  run_gloo_ranks(3, [](Communicator& world) {
    auto first = world.separate_world("save");
    if (world.rank() == 1) first->abort("the disk is full");
    try {
      first->barrier();
      first->barrier();  // rank 1's abort may reach others behind the first
      ADD_FAILURE() << "rank " << world.rank() << " did not notice";
    } catch (const CommError& error) {
      EXPECT_THAT(error.what(), HasSubstr("the disk is full"));
    }
    world.barrier();
    first = world.separate_world("save");
    first->barrier();
    if (world.rank() == 2) world.abort("loss is NaN");
    EXPECT_THROW(world.barrier(), CommError);
    first->barrier();
  });
}

}  // namespace
}  // namespace moetron
