// The backends on GPUs: nccl with a rank for each GPU there is, gloo with several ranks on one GPU.
// Ranks are threads over a store in memory. Without a GPU all of this is skipped.
#include <atomic>
#include <chrono>
#include <gmock/gmock.h>
#include <numeric>
#include <thread>

#include <ATen/ATen.h>
#include <ATen/cuda/Sleep.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "moetron/comm/gloo_communicator.h"
#include "moetron/comm/nccl_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr int64_t kSleepCycles = 200'000'000;  // about a tenth of a second

c10::Device gpu(int number) {
  return c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(number));
}

WorldOptions world_options(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                           milliseconds timeout) {
  WorldOptions options;
  options.store = store;
  options.rank = rank;
  options.size = size;
  options.timeout = timeout;
  options.join_timeout = seconds(60);
  return options;
}

using RankMain = std::function<void(Communicator& world, c10::Device device)>;

// Rank r on GPU r.
void run_nccl_ranks(int size, const RankMain& rank_main, int max_ctas = 0,
                    milliseconds timeout = seconds(60)) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const auto join = [&](int rank) {
    c10::cuda::set_device(gpu(rank).index());
    NcclOptions options;
    options.world = world_options(store, rank, size, timeout);
    options.device = gpu(rank);
    options.tuning.max_ctas = max_ctas;
    options.nccl_for_one = true;
    return make_nccl_world(options);
  };
  run_ranks_with(size, join,
                 [&](Communicator& world) { rank_main(world, gpu(world.world_rank())); });
}

// All ranks on GPU 0.
void run_gloo_ranks(int size, const RankMain& rank_main) {
  auto store = c10::make_intrusive<c10d::HashStore>();
  const auto join = [&](int rank) {
    return make_gloo_world(world_options(store, rank, size, seconds(60)));
  };
  run_ranks_with(size, join, [&](Communicator& world) { rank_main(world, gpu(0)); });
}

// Small integers, so that sums are exact in every type and order.
at::Tensor contribution(int rank, at::IntArrayRef shape, at::ScalarType type) {
  const int64_t count = c10::multiply_integers(shape);
  const at::Tensor index = at::arange(count, at::kLong);
  return (index * 7919 + rank * 104729 + 17).remainder(13).to(type).view(shape);
}

// Runs every collective on tensors of `device`, and returns what this rank holds then, on the host.
std::vector<at::Tensor> run_everything(Communicator& world, at::ScalarType type,
                                       c10::Device device) {
  const int rank = world.rank();
  const int size = world.size();
  const auto mine = [&](at::IntArrayRef shape) {
    return contribution(rank, shape, type).to(device);
  };
  const auto empty = [&](at::IntArrayRef shape) {
    return at::empty(shape, at::device(device).dtype(type));
  };
  std::vector<at::Tensor> results;
  std::vector<Work> works;
  for (int64_t count : {0, 1, 100003}) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax, ReduceOp::kMin}) {
      results.push_back(mine({count}));
      works.push_back(world.all_reduce(results.back(), op));
    }
  }
  results.push_back(empty({size * 5, 3}));
  works.push_back(world.all_gather(results.back(), mine({5, 3})));
  results.push_back(empty({size * 5, 3}));  // in place
  const at::Tensor own = results.back().narrow(0, rank * 5, 5).copy_(mine({5, 3}));
  works.push_back(world.all_gather(results.back(), own));
  results.push_back(empty({2011}));
  works.push_back(world.reduce_scatter(results.back(), mine({size * 2011})));
  const at::Tensor whole = mine({size * 4});
  results.push_back(whole.narrow(0, rank * 4, 4));  // in place
  works.push_back(world.reduce_scatter(results.back(), whole, ReduceOp::kMax));
  for (int root = 0; root < size; ++root) {
    results.push_back(mine({4, 7}));
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
  results.push_back(empty({out_rows, 7}));
  works.push_back(world.all_to_all_v(results.back(), mine({in_rows, 7}), received, sent));
  for (size_t i = works.size(); i-- > 0;) works[i].wait();
  for (at::Tensor& result : results) result = result.cpu();
  return results;
}

using Results = std::vector<std::vector<at::Tensor>>;  // by rank

Results results_of_threads(int size, at::ScalarType type) {
  Results results(size);
  run_ranks(size, [&](Communicator& world) {
    results[world.rank()] = run_everything(world, type, at::kCPU);
  });
  return results;
}

void expect_equal(const std::vector<at::Tensor>& results, const std::vector<at::Tensor>& expected,
                  at::ScalarType type) {
  ASSERT_EQ(results.size(), expected.size());
  for (size_t i = 0; i < results.size(); ++i) {
    EXPECT_TRUE(at::equal(results[i], expected[i])) << "result " << i << " of " << type;
  }
}

// What the streams promise: an operation sees what was queued before it, and what is queued after
// wait() sees its result.
void check_stream_order(Communicator& world, c10::Device device) {
  for (int i = 0; i < 3; ++i) {
    const at::Tensor tensor = at::zeros({1 << 20}, at::device(device));
    at::cuda::sleep(kSleepCycles);
    tensor.fill_(world.rank() + 1 + i);
    world.all_reduce(tensor).wait();
    const at::Tensor doubled = tensor * 2;
    const int size = world.size();
    const float sum = static_cast<float>(size * (size + 1) / 2 + size * i);
    EXPECT_TRUE(at::equal(doubled.cpu(), at::full({1 << 20}, 2 * sum)));
  }
}

// Messages to the next rank and from the previous one, beside a collective where `with_collective`.
void exchange_in_ring(Communicator& world, c10::Device device, bool with_collective) {
  const int size = world.size();
  const int next = (world.rank() + 1) % size;
  const int previous = (world.rank() + size - 1) % size;
  const at::Tensor outgoing = at::full({70000}, world.rank(), at::device(device).dtype(at::kFloat));
  const at::Tensor incoming = at::empty_like(outgoing);
  const at::Tensor sum = at::ones({9}, at::device(device));
  const at::Tensor all = at::empty({size}, at::device(device));
  const at::Tensor nothing = at::empty({0}, at::device(device));
  std::vector<Work> works;
  world.group_begin();
  if (with_collective) works.push_back(world.all_reduce(sum));
  if (size > 1) {
    works.push_back(world.send(outgoing, next, 3));
    works.push_back(world.recv(incoming, previous, 3));
    works.push_back(world.send(nothing, next, 3));
    works.push_back(world.recv(nothing, previous, 3));
  }
  if (with_collective) works.push_back(world.all_gather(all, outgoing.narrow(0, 0, 1)));
  world.group_end();
  for (Work& work : works) work.wait();
  if (size > 1) {
    EXPECT_TRUE(at::equal(incoming.cpu(), at::full({70000}, static_cast<float>(previous))));
  }
  if (with_collective) {
    EXPECT_EQ(sum[8].item<float>(), size);
    EXPECT_TRUE(at::equal(all.cpu(), at::arange(size, at::kFloat)));
  }
}

class NcclTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() < GetParam()) {
      GTEST_SKIP() << "needs " << GetParam() << " GPUs, there are "
                   << int{c10::cuda::device_count()};
    }
  }
  static int size() { return GetParam(); }
};

class GlooOnGpuTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "needs a GPU";
  }
  static int size() { return GetParam(); }
};

TEST_P(NcclTest, GivesTheResultsOfRankThreads) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte}) {
    const Results expected = results_of_threads(size(), type);
    for (int max_ctas : {0, 2}) {
      run_nccl_ranks(
          size(),
          [&](Communicator& world, c10::Device device) {
            expect_equal(run_everything(world, type, device), expected[world.rank()], type);
          },
          max_ctas);
    }
  }
}

TEST_P(NcclTest, TensorsOfTheHostTravelByTheGpu) {
  const Results expected = results_of_threads(size(), at::kLong);
  run_nccl_ranks(size(), [&](Communicator& world, c10::Device) {
    expect_equal(run_everything(world, at::kLong, at::kCPU), expected[world.rank()], at::kLong);
    // A type that NCCL does not know.
    const at::Tensor words = at::full({5}, 7 + world.rank(), at::kShort);
    world.broadcast(words, 0).wait();
    EXPECT_EQ(words[4].item<int16_t>(), 7);
  });
}

TEST_P(NcclTest, KeepsTheOrderOfTheStreamAndDoesNotBlockTheHost) {
  run_nccl_ranks(size(), [](Communicator& world, c10::Device device) {
    world.barrier();
    check_stream_order(world, device);
    const at::Tensor tensor = at::ones({4}, at::device(device));
    at::cuda::sleep(5 * kSleepCycles);
    world.all_reduce(tensor).wait();
    EXPECT_FALSE(c10::cuda::getCurrentCUDAStream().query()) << "wait() blocked the host";
    EXPECT_EQ(tensor[3].item<float>(), world.size());
  });
}

TEST_P(NcclTest, OperationsOfAGroupStartTogether) {
  run_nccl_ranks(size(), [](Communicator& world, c10::Device device) {
    for (int i = 0; i < 5; ++i) exchange_in_ring(world, device, /*with_collective=*/i % 2 == 0);
    world.group_begin();
    world.group_end();
    world.group_begin();
    Work early = world.all_reduce(at::ones({2}, at::device(device)));
    EXPECT_THROW(early.wait(), InternalError);
    world.group_end();
    early.wait();
  });
}

TEST_P(NcclTest, WorksMayBeDroppedUnwaited) {
  run_nccl_ranks(size(), [](Communicator& world, c10::Device device) {
    for (int i = 0; i < 50; ++i) world.all_reduce(at::ones({1 << 18}, at::device(device)));
    world.barrier();
  });
}

// Its memory must not be given away before the receive is there.
TEST_P(NcclTest, ASendThatIsDroppedArrives) {
  if (size() == 1) GTEST_SKIP() << "a lone rank has no peer";
  run_nccl_ranks(size(), [](Communicator& world, c10::Device device) {
    constexpr int64_t kElements = 1 << 20;
    const auto filled = [&](int value) { return at::full({kElements}, value, at::device(device)); };
    for (int i = 0; world.rank() == 0 && i < 8; ++i) {
      world.send(filled(i), 1);
      filled(-1);
    }
    if (world.rank() != 1) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    for (int i = 0; i < 8; ++i) {
      const at::Tensor received = at::empty({kElements}, at::device(device).dtype(at::kLong));
      world.recv(received, 0).wait();
      EXPECT_TRUE(at::equal(received, filled(i))) << i;
    }
  });
}

TEST_P(NcclTest, SplitMakesIndependentGroups) {
  run_nccl_ranks(size(), [](Communicator& world, c10::Device device) {
    const int rank = world.rank();
    const auto pair = world.split(rank / 2, rank, "pair");
    const auto all = world.split(0, -rank, "reversed");
    EXPECT_EQ(all->members()[0], world.size() - 1);
    for (int i = 0; i < 5; ++i) {
      const at::Tensor in_pair = at::full({5000}, rank, at::device(device).dtype(at::kFloat));
      const at::Tensor in_all = in_pair.clone();
      const at::Tensor in_world = in_pair.clone();
      Work a = world.all_reduce(in_world);
      Work b = pair->all_reduce(in_pair);
      Work c = all->all_reduce(in_all);
      c.wait();
      b.wait();
      a.wait();
      const int64_t sum = world.size() * (world.size() - 1) / 2;
      const int first = rank / 2 * 2;
      EXPECT_EQ(in_world[4999].item<float>(), sum);
      EXPECT_EQ(in_all[0].item<float>(), sum);
      EXPECT_EQ(in_pair[0].item<float>(), pair->size() == 1 ? rank : 2 * first + 1);
    }
  });
}

TEST_P(NcclTest, AnAbortEndsEveryWaitAndCall) {
  const auto begin = steady_clock::now();
  std::vector<std::string> messages(size());
  const auto rank_main = [&](Communicator& world, c10::Device device) {
    const auto group = world.split(0, world.rank(), "group");
    world.set_phase("step 7");
    const at::Tensor tensor = at::ones({4}, at::device(device));
    if (world.rank() == 0) world.abort("shard 3 is cut short");
    try {
      group->barrier();
      ADD_FAILURE() << "rank " << world.rank() << " did not notice";
    } catch (const CommError& error) {
      messages[world.rank()] = error.what();
      EXPECT_EQ(error.failed_rank(), 0);
    }
    EXPECT_THROW(world.all_reduce(tensor), CommError);
    EXPECT_THROW(world.subgroup({world.rank()}, "late")->barrier(), CommError);
    tensor.add_(1);  // the GPU itself is not held up
    EXPECT_EQ(tensor[0].item<float>(), 2);
  };
  run_nccl_ranks(size(), rank_main);
  EXPECT_LT(steady_clock::now() - begin, seconds(40));
  for (int r = 0; r < size(); ++r) {
    EXPECT_EQ(messages[r], concat("rank ", r,
                                  " in phase \"step 7\": barrier in group \"group\" failed: "
                                  "rank 0 in phase \"step 7\": shard 3 is cut short"));
  }
}

TEST_P(NcclTest, ATimeoutNamesTheOperationAndFreesTheGpu) {
  if (size() == 1) GTEST_SKIP() << "a lone rank waits for nobody";
  std::atomic<int> num_first = 0;
  const auto rank_main = [&](Communicator& world, c10::Device device) {
    const at::Tensor tensor = at::ones({4}, at::device(device));
    world.all_reduce(tensor).wait();
    EXPECT_EQ(tensor[0].item<float>(), world.size());
    PhaseScope phase(world, "saving");
    if (world.rank() == 1) {
      std::this_thread::sleep_for(seconds(6));  // alive, but busy elsewhere
      EXPECT_THROW(world.barrier(), CommError);
      return;
    }
    world.all_reduce(tensor).wait();  // does not block
    tensor.cpu();                     // does, until the world is given up
    try {
      world.barrier();
      ADD_FAILURE() << "rank " << world.rank() << " did not notice";
    } catch (const CommError& error) {
      if (error.first_to_notice()) ++num_first;
      EXPECT_THAT(error.what(),
                  AllOf(HasSubstr("barrier in group \"world\""), HasSubstr("timed out after 1 s"),
                        HasSubstr("in phase \"saving\" in all_reduce of group \"world\"")));
    }
  };
  run_nccl_ranks(size(), rank_main, /*max_ctas=*/0, milliseconds(1000));
  EXPECT_EQ(num_first, 1);
}

TEST_P(GlooOnGpuTest, GivesTheBitsOfRankThreads) {
  for (at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong, at::kByte}) {
    const Results expected = results_of_threads(size(), type);
    run_gloo_ranks(size(), [&](Communicator& world, c10::Device device) {
      expect_equal(run_everything(world, type, device), expected[world.rank()], type);
    });
  }
}

TEST_P(GlooOnGpuTest, KeepsTheOrderOfTheStreamAndPassesMessages) {
  run_gloo_ranks(size(), [](Communicator& world, c10::Device device) {
    check_stream_order(world, device);
    exchange_in_ring(world, device, /*with_collective=*/true);
    world.barrier();
  });
}

TEST_P(GlooOnGpuTest, RankThreadsRefuseTensorsOfAGpuUnlessAlone) {
  run_ranks(size(), [](Communicator& world) {
    const at::Tensor tensor = at::ones({4}, at::device(gpu(0)));
    if (world.size() > 1) {
      EXPECT_THROW(world.all_reduce(tensor), InternalError);
      return;
    }
    const at::Tensor copy = at::zeros({4}, at::device(gpu(0)));
    world.all_gather(copy, tensor).wait();
    world.all_reduce(copy).wait();
    EXPECT_EQ(copy[3].item<float>(), 1);
  });
}

std::string size_name(const ::testing::TestParamInfo<int>& info) {
  return concat("Size", info.param);
}

INSTANTIATE_TEST_SUITE_P(Sizes, NcclTest, ::testing::Values(1, 2, 4), size_name);
INSTANTIATE_TEST_SUITE_P(Sizes, GlooOnGpuTest, ::testing::Values(1, 2, 4), size_name);

}  // namespace
}  // namespace moetron
