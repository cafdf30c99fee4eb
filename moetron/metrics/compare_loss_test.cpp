#include "moetron/metrics/compare_loss.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/json.h"

namespace moetron {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(CompareLoss, AlignsBySteps) {
  const History first{{1, 4.0}, {2, 2.0}, {4, 1.0}, {6, 1.0}};
  const History second{{2, 2.5}, {3, 9.0}, {4, 1.0}, {6, 0.75}, {7, 9.0}};
  const LossComparison result = compare_histories(first, second, 0.21);
  EXPECT_EQ(result.num_steps, 3);
  EXPECT_EQ(result.first_step, 2);
  EXPECT_EQ(result.last_step, 6);
  EXPECT_EQ(result.num_only_first, 1);
  EXPECT_EQ(result.num_only_second, 2);
  EXPECT_EQ(result.max_absolute.value, 0.5);
  EXPECT_EQ(result.max_absolute.step, 2);
  EXPECT_EQ(result.max_relative.value, 0.25);
  EXPECT_EQ(result.max_relative.step, 6);
  EXPECT_DOUBLE_EQ(result.mean_absolute, 0.25);
  EXPECT_DOUBLE_EQ(result.mean_relative, 0.15);
  EXPECT_EQ(result.first_past_tolerance, 6);
  EXPECT_EQ(compare_histories(first, second, 0.1).first_past_tolerance, 2);
  EXPECT_EQ(compare_histories(first, second, 0.25).first_past_tolerance, std::nullopt);
  EXPECT_EQ(difference_of(first, second), (History{{2, 0.5}, {4, 0.0}, {6, -0.25}}));
}

TEST(CompareLoss, NoToleranceMeansTheSameBits) {
  const History run{{1, 1.0 / 3.0}, {2, 0.0}};
  EXPECT_EQ(compare_histories(run, run, 0).first_past_tolerance, std::nullopt);
  const History other{{1, std::nextafter(1.0 / 3.0, 1.0)}, {2, 0.0}};
  EXPECT_EQ(compare_histories(run, other, 0).first_past_tolerance, 1);
}

TEST(CompareLoss, ComparesWhatIsNotFinite) {
  const auto past = [](double a, double b) {
    return compare_histories({{1, a}}, {{1, b}}, 1e6).first_past_tolerance.has_value();
  };
  EXPECT_FALSE(past(kNan, kNan));
  EXPECT_FALSE(past(kInfinity, kInfinity));
  EXPECT_FALSE(past(0.0, -0.0));
  EXPECT_TRUE(past(kNan, 1.0));
  EXPECT_TRUE(past(1.0, kNan));
  EXPECT_TRUE(past(kInfinity, -kInfinity));
  EXPECT_TRUE(past(kInfinity, 1.0));
  EXPECT_TRUE(past(kInfinity, kNan));
}

TEST(CompareLoss, WithoutCommonStepsThereIsNothing) {
  const LossComparison result = compare_histories({{1, 1.0}}, {{2, 1.0}, {3, 1.0}}, 0);
  EXPECT_EQ(result.num_steps, 0);
  EXPECT_EQ(result.num_only_second, 2);
  EXPECT_EQ(result.mean_absolute, 0);
}

TEST(CompareLoss, IsToldToPeople) {
  const LossComparison result =
      compare_histories({{1, 4.0}, {2, 2.0}}, {{1, 4.0}, {2, 1.5}, {3, 1.0}}, 0.01);
  EXPECT_EQ(describe(result, "loss"),
            "loss: 2 steps in common, 1 to 2; 1 only in the second run\n"
            "difference:          0.5 at most, at step 2; 0.25 on average\n"
            "relative difference: 25 % at most, at step 2; 12.5 % on average\n"
            "past the tolerance (1 %) first at step 2\n");
  const LossComparison near = compare_histories({{1, 4.0}}, {{1, 3.0}}, 0.5);
  EXPECT_NE(describe(near, "loss").find("all steps are within the tolerance (50 %)"),
            std::string::npos);
}

TEST(CompareLoss, IsToldToMachines) {
  const LossComparison result =
      compare_histories({{1, 4.0}, {2, 2.0}}, {{1, 4.0}, {2, kNan}}, 0.01);
  const Json json = parse_json(to_json_text(result, "loss", {}), "text");
  EXPECT_EQ(json.at("steps"), 2);
  EXPECT_EQ(json.at("max_difference").at("value"), "inf");
  EXPECT_EQ(json.at("max_relative_difference").at("step"), 2);
  EXPECT_EQ(json.at("first_step_past_tolerance"), 2);
  EXPECT_EQ(json.at("within_tolerance"), false);
  const Json same =
      parse_json(to_json_text(compare_histories({{1, 4.0}}, {{1, 4.0}}, 0), "loss", {}), "text");
  EXPECT_TRUE(same.at("first_step_past_tolerance").is_null());
  EXPECT_TRUE(same.at("max_difference").at("step").is_null());
  EXPECT_EQ(same.at("within_tolerance"), true);
}

}  // namespace
}  // namespace moetron
