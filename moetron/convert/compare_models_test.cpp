#include "moetron/convert/compare_models.h"

#include <cmath>
#include <gmock/gmock.h>
#include <limits>

#include <gtest/gtest.h>

#include "moetron/base/temporary_folder.h"
#include "moetron/convert/memory_source_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using enum SafetensorsDtype;

class CompareModels : public testing::Test {
 protected:
  ModelComparison compare(const MemorySource& first, const MemorySource& second,
                          const CompareSettings& settings = {}) {
    first.write(folder_.path() / "a", "{}");
    second.write(folder_.path() / "b", "{}");
    return compare_models(folder_.path() / "a", folder_.path() / "b", settings);
  }
  TemporaryFolder folder_{"compare_models_test"};
};

TEST_F(CompareModels, MeasuresDifferences) {
  MemorySource first, second;
  first.add("same", kF32, {2}, {1, 2});
  second.add("same", kF32, {2}, {1, 2});
  first.add("other", kF32, {2}, {3, 4});
  second.add("other", kF32, {2}, {3, 5});
  const ModelComparison found = compare(first, second, {.num_threads = 2});
  ASSERT_EQ(found.compared.size(), 2U);
  const TensorDifference& worst = found.compared[0];
  EXPECT_EQ(worst.name, "other");
  EXPECT_EQ(worst.num_unlike, 1U);
  EXPECT_EQ(worst.max_abs, 1);
  EXPECT_EQ(worst.max_rel, 0.2);
  EXPECT_NEAR(worst.cosine, 29 / (5 * std::sqrt(34.0)), 1e-12);
  EXPECT_DOUBLE_EQ(found.compared[1].cosine, 1);
  EXPECT_TRUE(found.differs());
  EXPECT_THAT(describe(found, 10), HasSubstr("different: 2 tensors compared, 1 unlike, 0 missing"));
  EXPECT_FALSE(compare(first, second, {.atol = 1}).differs());
  EXPECT_FALSE(compare(first, second, {.rtol = 0.2}).differs());
  EXPECT_TRUE(compare(first, second, {.atol = 0.9, .rtol = 0.19}).differs());
}

TEST_F(CompareModels, TellsWhatOnlyOneHasAndOtherShapes) {
  MemorySource first, second;
  first.add("gone", kF32, {1}, {1});
  second.add("new", kF32, {1}, {1});
  first.add("turned", kF32, {1, 2}, {1, 2});
  second.add("turned", kF32, {2, 1}, {1, 2});
  const ModelComparison found = compare(first, second);
  EXPECT_THAT(found.missing, ElementsAre("gone"));
  EXPECT_THAT(found.extra, ElementsAre("new"));
  EXPECT_THAT(found.other_shapes, ElementsAre("turned [1, 2] [2, 1]"));
  EXPECT_TRUE(found.compared.empty());
  EXPECT_TRUE(found.differs());
}

TEST_F(CompareModels, WidensOtherTypes) {
  MemorySource first, second;
  first.add("w", kF32, {3}, {1, -0.5F, 0});
  second.add("w", kBF16, {3}, {1, -0.5F, 0});
  const ModelComparison found = compare(first, second);
  EXPECT_THAT(found.other_dtypes, ElementsAre("w F32 BF16"));
  EXPECT_FALSE(found.differs());
}

TEST_F(CompareModels, MultipliesEightBits) {
  MemorySource first, second;
  first.add("w", kF8E4M3, {1, 2}, {1, 2});
  first.add("w_scale_inv", kF32, {1, 1}, {3});
  second.add("w", kBF16, {1, 2}, {3, 6});
  EXPECT_FALSE(compare(first, second).differs());
}

TEST_F(CompareModels, KnowsWhatIsNoNumber) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  MemorySource first, second;
  first.add("a", kF32, {2}, {kInfinity, std::nanf("")});
  second.add("a", kF32, {2}, {kInfinity, std::nanf("")});
  EXPECT_FALSE(compare(first, second).differs());
  second.bytes("a") = std::vector<std::byte>(8);
  const ModelComparison found = compare(first, second, {.atol = 1e9, .rtol = 1e9});
  EXPECT_EQ(found.compared[0].num_unlike, 2U);
  EXPECT_EQ(found.compared[0].max_abs, kInfinity);
}

TEST_F(CompareModels, ComparesIntegersAndBits) {
  MemorySource first, second;
  const auto bytes = [](int value) { return std::vector<std::byte>(8, std::byte(value)); };
  first.add_bytes({"i", kI64, {1}}, bytes(1));
  second.add_bytes({"i", kI64, {1}}, bytes(1));
  first.add_bytes({"x", kF8E5M2, {8}}, bytes(1));
  second.add_bytes({"x", kF8E5M2, {8}}, bytes(1));
  EXPECT_FALSE(compare(first, second).differs());
  second.bytes("x")[3] = std::byte{2};
  EXPECT_EQ(compare(first, second).compared[0].num_unlike, 1U);
}

TEST_F(CompareModels, TakesSingleFiles) {
  MemorySource model;
  model.add("w", kF32, {2}, {1, 2});
  model.write(folder_.path() / "a", "{}");
  EXPECT_FALSE(compare_models(folder_.path() / "a", folder_.path() / "a" / "model.safetensors", {})
                   .differs());
}

}  // namespace
}  // namespace moetron
