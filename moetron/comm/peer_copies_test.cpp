// Copies between GPUs, whose ranks are threads here and share one GPU. Without a GPU all of this is
// skipped.
#include "moetron/comm/peer_copies.h"

#include <chrono>
#include <cstdlib>
#include <numeric>
#include <random>
#include <thread>

#include <ATen/ATen.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <gtest/gtest.h>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;

// Before CUDA starts: a queue for each stream, since no rank may wait for another's behind its own.
[[maybe_unused]] const int kQueues = ::setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*replace=*/1);

const c10::Device kDevice(c10::kCUDA, 0);

class PeerCopiesTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    if (c10::cuda::device_count() == 0) GTEST_SKIP() << "needs a GPU";
  }

  using RankMain = std::function<void(PeerCopies& copies, int rank)>;

  // Ranks as threads, each on a stream of its own.
  void run(const RankMain& rank_main) {
    const c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
    const int size = GetParam();
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        c10::cuda::set_device(kDevice.index());
        cudaStream_t own = nullptr;
        ASSERT_EQ(cudaStreamCreateWithFlags(&own, cudaStreamNonBlocking), cudaSuccess);
        const c10::cuda::CUDAStreamGuard guard(
            c10::cuda::getStreamFromExternal(own, kDevice.index()));
        const auto exchange = [&](const std::string& name, const std::string& mine) {
          store->set(concat(name, rank), mine);
          std::vector<std::string> said;
          for (int r = 0; r < size; ++r) said.push_back(store->get_to_str(concat(name, r)));
          return said;
        };
        const auto copies = PeerCopies::connect(exchange, rank, size, kDevice);
        ASSERT_TRUE(copies);
        rank_main(*copies, rank);
        copies->issue_farewell(std::make_shared<const std::string>("the end"));
        while (copies->oldest()) std::this_thread::sleep_for(milliseconds(1));
        exchange("left", "");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
};

// Small integers, so that sums are exact in every type.
at::Tensor numbers(int64_t rank, int64_t turn, int64_t count, at::ScalarType type) {
  const at::Tensor index = at::arange(count, at::device(kDevice).dtype(at::kLong));
  return (index * 7919 + rank * 104729 + turn * 31).remainder(13).to(type);
}

std::shared_ptr<Operation> operation_of(OperationKind kind, at::Tensor output, at::Tensor input) {
  auto operation = std::make_shared<Operation>(Operation{.kind = kind});
  operation->output = std::move(output);
  operation->input = std::move(input);
  operation->phase = std::make_shared<const std::string>("step 1");
  return operation;
}

// An operation with its result, and what that should be.
struct Trial {
  c10::intrusive_ptr<c10d::Work> work;
  at::Tensor result, expected;
};

Trial try_one(PeerCopies& copies, int rank, int size, int64_t turn, std::mt19937& random) {
  const std::vector<at::ScalarType> types = {at::kFloat, at::kBFloat16, at::kLong};
  const int64_t largest = turn % 10 == 0 ? 12'000'000 : 70'000;  // several rooms, or a part of one
  const int64_t count = std::uniform_int_distribution<int64_t>(0, largest)(random);
  const at::ScalarType type = types[random() % types.size()];
  const bool in_place = random() % 2 == 0;
  const uint32_t which = random() % 3;
  const auto stream = c10::cuda::getCurrentCUDAStream(kDevice.index());
  const auto empty = [&](int64_t numel) {
    return at::empty({numel}, at::device(kDevice).dtype(type));
  };
  Trial trial;
  std::shared_ptr<Operation> operation;
  std::vector<at::Tensor> parts;
  if (which == 0) {
    at::Tensor output = empty(size * count), input = numbers(rank, turn, count, type);
    if (in_place) input = output.narrow(0, rank * count, count).copy_(input);
    for (int r = 0; r < size; ++r) parts.push_back(numbers(r, turn, count, type));
    trial.expected = at::cat(parts);
    operation = operation_of(OperationKind::kAllGather, output, input);
  } else if (which == 1) {
    at::Tensor input = numbers(rank, turn, size * count, type);
    const at::Tensor own = input.narrow(0, rank * count, count);
    trial.expected = at::zeros({count}, own.options());
    for (int r = 0; r < size; ++r)
      trial.expected += numbers(r, turn, size * count, type).narrow(0, rank * count, count);
    operation = operation_of(OperationKind::kReduceScatter, in_place ? own : empty(count), input);
  } else {
    const auto rows = [&](int from, int to) { return (from * 3 + to * 5 + turn) % 4 * count / 7; };
    std::vector<int64_t> out, in;
    for (int r = 0; r < size; ++r) {
      out.push_back(rows(r, rank));
      in.push_back(rows(rank, r));
    }
    const auto input_of = [&](int from) {
      int64_t sum = 0;
      for (int r = 0; r < size; ++r) sum += rows(from, r);
      return numbers(from, turn, sum, type);
    };
    for (int r = 0; r < size; ++r) {
      int64_t before = 0;
      for (int q = 0; q < rank; ++q) before += rows(r, q);
      parts.push_back(input_of(r).narrow(0, before, rows(r, rank)));
    }
    trial.expected = at::cat(parts);
    operation =
        operation_of(OperationKind::kAllToAllV, empty(trial.expected.numel()), input_of(rank));
    operation->output_counts = out;
    operation->input_counts = in;
  }
  trial.result = operation->output;
  trial.work = copies.issue({{operation, stream}});
  return trial;
}

TEST_P(PeerCopiesTest, BringsWhatWasSent) {
  run([](PeerCopies& copies, int rank) {
    std::mt19937 random(5);  // the same on every rank
    std::vector<Trial> trials;
    for (int64_t turn = 0; turn < 200; ++turn) {
      trials.push_back(try_one(copies, rank, GetParam(), turn, random));
      if (trials.size() < 6) continue;
      std::shuffle(trials.begin(), trials.end(), std::mt19937(static_cast<uint32_t>(turn)));
      for (Trial& trial : trials) {
        trial.work->wait();
        ASSERT_TRUE(at::equal(trial.result, trial.expected)) << "before turn " << turn;
      }
      trials.clear();
    }
  });
}

TEST_P(PeerCopiesTest, KeepsWhatNobodyWaitsFor) {
  run([](PeerCopies& copies, int rank) {
    constexpr int64_t kCount = 4'000'000;
    const auto options = at::device(kDevice).dtype(at::kFloat);
    const auto stream = c10::cuda::getCurrentCUDAStream(kDevice.index());
    const at::Tensor kept = at::empty({GetParam() * kCount}, options);
    for (int i = 0; i < 20; ++i) {
      const at::Tensor output = i == 0 ? kept : at::empty_like(kept);
      const at::Tensor input = at::full({kCount}, rank, options);
      copies.issue({{operation_of(OperationKind::kAllGather, output, input), stream}});
      at::full({kCount}, -1, options);  // would take memory that is given back too early
    }
    while (copies.oldest()) std::this_thread::sleep_for(milliseconds(1));
    for (int r = 0; r < GetParam(); ++r)
      EXPECT_TRUE(kept.narrow(0, r * kCount, kCount).eq(r).all().item<bool>());
  });
}

TEST_P(PeerCopiesTest, AGpuThatWaitsForAnAbsentRankIsFreed) {
  std::atomic<int> num_here = 0;
  run([&](PeerCopies& copies, int rank) {
    if (rank == 0) {
      const at::Tensor output = at::zeros({GetParam() * 1000}, at::device(kDevice));
      const auto stream = c10::cuda::getCurrentCUDAStream(kDevice.index());
      const at::Tensor input = at::ones({1000}, at::device(kDevice));
      const auto work =
          copies.issue({{operation_of(OperationKind::kAllGather, output, input), stream}});
      work->wait();
      std::this_thread::sleep_for(milliseconds(300));
      const auto waits = copies.oldest();
      ASSERT_TRUE(waits);
      EXPECT_EQ(*waits->phase, "step 1");
    }
    copies.release();
    c10::cuda::getCurrentCUDAStream(kDevice.index()).synchronize();
    ++num_here;
    while (num_here < GetParam()) std::this_thread::sleep_for(milliseconds(1));
  });
}

INSTANTIATE_TEST_SUITE_P(Sizes, PeerCopiesTest, ::testing::Values(2, 3),
                         [](const auto& parameter) { return concat("Size", parameter.param); });

}  // namespace
}  // namespace moetron
