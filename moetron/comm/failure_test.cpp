// What the other ranks see when one fails, and gradients that need collectives.
#include <chrono>
#include <gmock/gmock.h>
#include <thread>

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(CommFailureTest, AnExceptionPoisonsAllGroupsAndIsRethrownAsItWas) {
  std::vector<std::string> messages(4);
  std::vector<int> failed(4, -2);
  const auto begin = steady_clock::now();
  try {
    run_ranks(4, [&](Communicator& world) {
      auto pair = world.split(world.rank() / 2, 0, "pair");
      PhaseScope phase(world, concat("step ", 7));
      if (world.rank() == 2) throw ConfigError("num-experts (12) is odd today");
      Communicator& waits_in = world.rank() == 0 ? *pair : world;
      try {
        if (world.rank() == 1) std::this_thread::sleep_for(milliseconds(50));  // comes too late
        const at::Tensor tensor = at::zeros({4});
        if (world.rank() == 0) waits_in.recv(tensor, 1).wait();
        if (world.rank() != 0) waits_in.all_reduce(tensor).wait();
        ADD_FAILURE() << "rank " << world.rank() << " did not notice";
      } catch (const CommError& error) {
        EXPECT_EQ(error.exit_code(), kExitInternal);
        messages[world.rank()] = error.what();
        failed[world.rank()] = error.failed_rank();
        throw;
      }
    });
    FAIL() << "run_ranks returned";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "num-experts (12) is odd today");
  }
  EXPECT_LT(steady_clock::now() - begin, std::chrono::minutes(2));  // not by the time-out
  EXPECT_EQ(messages[3],
            "rank 3 in phase \"step 7\": all_reduce in group \"world\" failed: rank 2 in phase "
            "\"step 7\": num-experts (12) is odd today");
  EXPECT_THAT(messages[0], AllOf(HasSubstr("rank 0"), HasSubstr("recv in group \"pair\"")));
  EXPECT_THAT(messages[1], AllOf(HasSubstr("rank 1"), HasSubstr("num-experts (12)")));
  EXPECT_EQ(failed, (std::vector<int>{2, 2, -2, 2}));
}

TEST(CommFailureTest, ATimeoutNamesTheMissingRanksAndOneRankNoticesFirst) {
  std::atomic<int> num_first = 0;
  std::atomic<int> num_errors = 0;
  const auto rank_main = [&](Communicator& world) {
    world.set_phase("saving");
    if (world.rank() == 1) return;  // leaves without a word
    try {
      world.barrier();
    } catch (const CommError& error) {
      ++num_errors;
      if (error.first_to_notice()) ++num_first;
      EXPECT_THAT(error.what(), AllOf(HasSubstr("barrier in group \"world\""),
                                      HasSubstr("in phase \"saving\" waited 1 s"),
                                      HasSubstr("in vain for rank 1")));
      throw;
    }
  };
  EXPECT_THROW(run_ranks(3, rank_main, milliseconds(1000)), CommError);
  EXPECT_EQ(num_errors, 2);
  EXPECT_EQ(num_first, 1);
}

TEST(CommFailureTest, AMessageThatNobodySendsTimesOut) {
  const auto rank_main = [](Communicator& world) {
    auto group = world.subgroup({1, 0}, "reversed");
    if (world.rank() == 1) group->recv(at::zeros({2}), 1, 5).wait();
  };
  try {
    run_ranks(2, rank_main, milliseconds(1000));
    FAIL();
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("recv in group \"reversed\""), HasSubstr("in vain for rank 0")));
  }
}

TEST(CommFailureTest, AbortEndsTheWaitsOfOthers) {
  try {
    run_ranks(3, [](Communicator& world) {
      if (world.rank() == 0) return world.abort("loss is NaN");
      world.all_reduce(at::ones({3})).wait();
    });
    FAIL();
  } catch (const CommError& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 0: loss is NaN"));
    EXPECT_EQ(error.failed_rank(), 0);
  }
}

TEST(CommFailureTest, ASeparateWorldFailsAlone) {
  run_ranks(3, [](Communicator& world) {
    const auto first = world.separate_world("first");
    const auto second = world.separate_world("first");
    world.set_phase("training");
    EXPECT_EQ(first->phase(), "");
    if (world.rank() == 1) first->abort("the disk is full");
    EXPECT_THROW(first->barrier(), CommError);
    for (Communicator* sound : {second.get(), &world}) {
      const at::Tensor sum = at::full({2}, 1 + sound->rank());
      sound->all_reduce(sum).wait();
      EXPECT_EQ(sum[0].item<int>(), 6);
    }
    second->barrier();
    if (world.rank() == 2) world.abort("loss is NaN");
    EXPECT_THROW(world.barrier(), CommError);
    second->barrier();
  });
}

TEST(CommFailureTest, OperationsThatDoNotMatchAreNamed) {
  const auto mismatch = [](const std::function<void(Communicator&)>& rank_main) {
    try {
      run_ranks(2, rank_main);
      return std::string("no error");
    } catch (const CommError& error) {
      return std::string(error.what());
    }
  };
  EXPECT_THAT(mismatch([](Communicator& world) {
                if (world.rank() == 0) world.barrier();
                if (world.rank() == 1) world.all_reduce(at::ones({2})).wait();
              }),
              HasSubstr("rank 0 of the group issued barrier where rank 1 issued all_reduce"));
  EXPECT_THAT(
      mismatch([](Communicator& world) { world.all_reduce(at::ones({2 + world.rank()})).wait(); }),
      HasSubstr("all_reduce of 8 bytes on rank 0 of the group, of 12 on rank 1"));
  EXPECT_THAT(
      mismatch([](Communicator& world) {
        const std::vector<int64_t> one = {1, 1};
        const std::vector<int64_t> more = {1, 2};
        const int64_t rows = world.rank() == 0 ? 3 : 2;
        world.all_to_all_v(at::ones({2}), at::ones({rows}), one, world.rank() == 0 ? more : one)
            .wait();
      }),
      HasSubstr("rank 0 of the group sends 2 rows to rank 1, which expects 1"));
  EXPECT_THAT(mismatch([](Communicator& world) {
                if (world.rank() == 0) world.send(at::ones({2}), 1).wait();
                if (world.rank() == 1) world.recv(at::ones({3}), 0).wait();
              }),
              HasSubstr("a message of 8 bytes met a recv of 12"));
}

// y = sum of x over the ranks; its gradient is the sum of the ranks' gradients.
struct SumOverRanks : torch::autograd::Function<SumOverRanks> {
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            Communicator* world) {
    ctx->saved_data["world"] = reinterpret_cast<int64_t>(world);
    const at::Tensor y = x.clone();
    world->all_reduce(y).wait();
    return y;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto* world = reinterpret_cast<Communicator*>(ctx->saved_data["world"].toInt());
    const at::Tensor dx = grads[0].clone();
    world->all_reduce(dx).wait();
    return {dx, at::Tensor()};
  }
};

TEST(CommFailureTest, BackwardMayWaitForOtherRanks) {
  // On one rank: the loss sum_r r' * (sum_s w_s^2)^2 / 2 has the gradient computed by hand below.
  run_ranks(4, [](Communicator& world) {
    for (int repeat = 0; repeat < 10; ++repeat) {
      const at::Tensor w = at::full({3}, 1.0f + world.rank()).requires_grad_();
      const at::Tensor total = SumOverRanks::apply(w * w, &world);  // [3], each 1 + 4 + 9 + 16
      const at::Tensor loss = ((world.rank() + 1) * total * total / 2).sum();
      torch::autograd::backward({loss}, {at::ones_like(loss)});
      // d loss / d w = 2 w * sum over ranks of (rank + 1) * total = 2 w * 10 * 30.
      EXPECT_TRUE(at::equal(w.grad(), at::full({3}, 2.0f * (1 + world.rank()) * 300)));
    }
  });
}

}  // namespace
}  // namespace moetron
