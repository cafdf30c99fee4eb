#include "moetron/parallel/gradient_buffer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/autograd/parameter.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

TEST(GradientBuffer, SumsEveryTrainableAccumulatorOverTheRanks) {
  run_ranks(4, [](Communicator& world) {
    Parameter matrix("m", {2, 3}, at::kFloat, {});
    Parameter bias("b", {8}, at::kFloat, {.trainable = false});
    Parameter vector("v", {5}, at::kFloat, {});
    GradientBuffer buffer({&matrix, &bias, &vector});
    EXPECT_EQ(buffer.num_elements(), 11);
    matrix.grad().fill_(world.rank() + 1);
    vector.grad().fill_(0.5);
    buffer.all_reduce(world);
    EXPECT_TRUE(at::equal(matrix.grad(), at::full({2, 3}, 10.0f)));
    EXPECT_TRUE(at::equal(vector.grad(), at::full({5}, 2.0f)));
    buffer.zero();
    EXPECT_EQ(matrix.grad().sum().item<float>(), 0);
    EXPECT_FALSE(bias.has_grad());
  });
}

}  // namespace
}  // namespace moetron
