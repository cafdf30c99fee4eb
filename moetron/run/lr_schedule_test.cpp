#include "moetron/run/lr_schedule.h"

#include <numbers>

#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(LrSchedule, WarmsUpAndDecays) {
  LrSchedule s{1e-3, 1e-4, 1e-5, 10, 110, LrDecayStyle::kCosine};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 1e-5);
  EXPECT_DOUBLE_EQ(learning_rate(s, 5), 1e-5 + 0.5 * (1e-3 - 1e-5));
  EXPECT_DOUBLE_EQ(learning_rate(s, 10), 1e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 60), (1e-3 + 1e-4) / 2);  // half of the cosine
  EXPECT_NEAR(learning_rate(s, 35), 1e-4 + 9e-4 * (0.5 + std::numbers::sqrt2 / 4), 1e-18);
  EXPECT_DOUBLE_EQ(learning_rate(s, 110), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 111), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 100000), 1e-4);
  s.style = LrDecayStyle::kLinear;
  EXPECT_DOUBLE_EQ(learning_rate(s, 35), 1e-4 + 0.75 * 9e-4);
  EXPECT_DOUBLE_EQ(learning_rate(s, 110), 1e-4);
  s.style = LrDecayStyle::kConstant;
  EXPECT_DOUBLE_EQ(learning_rate(s, 5), 1e-5 + 0.5 * (1e-3 - 1e-5));
  EXPECT_DOUBLE_EQ(learning_rate(s, 100000), 1e-3);
}

TEST(LrSchedule, WithoutWarmupStartsAtTheHighest) {
  const LrSchedule s{2e-3, 0, 0, 0, 4, LrDecayStyle::kLinear};
  EXPECT_DOUBLE_EQ(learning_rate(s, 0), 2e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 1), 1.5e-3);
  EXPECT_DOUBLE_EQ(learning_rate(s, 4), 0);
}

}  // namespace
}  // namespace moetron
