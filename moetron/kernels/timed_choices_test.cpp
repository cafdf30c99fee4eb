// When a way that was found by time comes into use.
#include <optional>

#include <gtest/gtest.h>

#include "moetron/kernels/choice_hold.h"

#ifdef MOETRON_CUDA
#include "moetron/kernels/kernel_test_support.h"
#include "moetron/kernels/timed_choices.h"
#endif

namespace moetron {
namespace {

TEST(ChoiceHold, LetsNothingInUntilTheLastOneEnds) {
  const int64_t before = ChoiceHold::period();
  EXPECT_TRUE(ChoiceHold::lets_in(before));
  std::optional<ChoiceHold> first(std::in_place), second(std::in_place);
  const int64_t within = ChoiceHold::period();
  EXPECT_FALSE(ChoiceHold::lets_in(within));
  first.reset();
  EXPECT_FALSE(ChoiceHold::lets_in(within));
  second.reset();
  EXPECT_TRUE(ChoiceHold::lets_in(within));
  const ChoiceHold next;  // what was found before it may come in
  EXPECT_TRUE(ChoiceHold::lets_in(within));
  EXPECT_FALSE(ChoiceHold::lets_in(ChoiceHold::period()));
}

#ifdef MOETRON_CUDA

// The first listed way copies a thousand times as much as the other.
struct TwoWays {
  int size() const { return 2; }
  int64_t workspace_bytes(int) const { return 0; }
};

TEST(TimedChoices, AHeldShapeKeepsItsWayAndTakesTheFastestAfterwards) {
  SKIP_WITHOUT_GPU();
  const at::Tensor from = at::zeros({100 << 20}, at::TensorOptions(at::kCUDA).dtype(at::kByte));
  const at::Tensor to = at::empty_like(from);
  TimedChoices<int, TwoWays> choices;
  const auto way_of = [&](int shape) {
    int last = -1;
    choices.run(
        shape, from, /*may_try=*/true, [] { return std::make_shared<const TwoWays>(); },
        [&](const TwoWays&, int way, void*) {
          const int64_t bytes = way == 0 ? from.numel() : from.numel() / 1000;
          to.narrow(0, 0, bytes).copy_(from.narrow(0, 0, bytes));
          last = way;
        });
    return last;
  };
  {
    const ChoiceHold hold;
    for (int use = 0; use < 4; ++use) EXPECT_EQ(way_of(1), 0) << use;
  }
  {
    const ChoiceHold hold;
    EXPECT_EQ(way_of(1), 1);
  }
  EXPECT_EQ(way_of(2), 0);  // without a hold at once
  EXPECT_EQ(way_of(2), 1);
}

#endif

}  // namespace
}  // namespace moetron
