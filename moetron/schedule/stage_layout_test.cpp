#include "moetron/schedule/stage_layout.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;
using Shape = Placement::Shape;

std::vector<int64_t> counts_of(const std::vector<StageLayers>& stages) {
  std::vector<int64_t> counts;
  counts.reserve(stages.size());
  for (const StageLayers& stage : stages) counts.push_back(stage.count);
  return counts;
}

std::vector<int64_t> even(Shape shape, int num_ranks, int64_t num_layers) {
  return counts_of(stage_layout({shape, num_ranks}, num_layers, {}, "stages"));
}

TEST(StageLayout, StagesFollowEachOther) {
  EXPECT_THAT(stage_layout({Shape::kStraight, 3}, 7, {4, 0, 3}, "stages"),
              ElementsAre(StageLayers{0, 4, true, false}, StageLayers{4, 0, false, false},
                          StageLayers{4, 3, false, true}));
}

TEST(StageLayout, ALoneStageHasBothEnds) {
  EXPECT_THAT(stage_layout({Shape::kStraight, 1}, 5, {}, "stages"),
              ElementsAre(StageLayers{0, 5, true, true}));
}

TEST(StageLayout, NumbersAreChunkMajor) {
  EXPECT_THAT(counts_of(stage_layout({Shape::kV, 4}, 22, {2, 3, 3, 3, 1, 4, 5, 1}, "stages")),
              ElementsAre(2, 3, 3, 3, 1, 5, 4, 1));
  EXPECT_THAT(counts_of(stage_layout({Shape::kLoop, 2}, 7, {2, 2, 1, 2}, "stages")),
              ElementsAre(2, 2, 1, 2));
}

TEST(StageLayout, EvenStagesLeaveTheEndsFewer) {
  EXPECT_THAT(even(Shape::kStraight, 4, 8), ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(even(Shape::kStraight, 4, 9), ElementsAre(2, 3, 2, 2));
  EXPECT_THAT(even(Shape::kStraight, 4, 10), ElementsAre(2, 3, 3, 2));
  EXPECT_THAT(even(Shape::kStraight, 4, 11), ElementsAre(3, 3, 3, 2));
  EXPECT_THAT(even(Shape::kV, 2, 2), ElementsAre(0, 1, 1, 0));
  EXPECT_THAT(even(Shape::kStraight, 2, 7), ElementsAre(4, 3));
}

TEST(StageLayout, RefusesNumbersThatDoNotFit) {
  const auto refusal = [](const std::vector<int64_t>& layers) {
    return [layers] { stage_layout({Shape::kV, 2}, 7, layers, "virtual-hetero-pipeline-stages"); };
  };
  EXPECT_THAT(refusal({4, 3}), ThrowsMessage<ConfigError>(HasSubstr(
                                   "virtual-hetero-pipeline-stages has 2 numbers, not 4: "
                                   "pipeline-model-parallel-size (2) times 2 chunks a rank")));
  EXPECT_THAT(refusal({2, 2, 1, 1}),
              ThrowsMessage<ConfigError>(HasSubstr("is 6 layers in all, but num-layers is 7")));
  EXPECT_THAT(refusal({2, 2, 4, -1}),
              ThrowsMessage<ConfigError>(HasSubstr("(-1 layers in chunk 1 of rank 1)")));
}

}  // namespace
}  // namespace moetron
