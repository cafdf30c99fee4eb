#include "moetron/arch/mesh_layout.h"

#include <set>

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

TEST(MeshLayout, DerivesTheDataParallelSizes) {
  const ParallelSizes sizes = parallel_sizes(64, 4, 2, 8, 2);
  EXPECT_EQ(sizes.dp, 8);
  EXPECT_EQ(sizes.edp, 2);
  EXPECT_EQ(describe(sizes), "64 ranks: PP 2 x DP 8 x TP 4; experts PP 2 x EDP 2 x EP 8 x TPE 2");
  EXPECT_EQ(parallel_sizes(1, 1, 1, 1, 1).dp, 1);
}

TEST(MeshLayout, OrdersRanksLikeMegatron) {
  const ParallelSizes sizes = parallel_sizes(16, 2, 2, 2, 1);  // dp 4, edp 4
  EXPECT_EQ(group_along(sizes, 5, MeshAxis::kTp), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(group_along(sizes, 5, MeshAxis::kDp), (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(group_along(sizes, 5, MeshAxis::kPp), (std::vector<int64_t>{5, 13}));
  EXPECT_EQ(group_along(sizes, 5, MeshAxis::kTpe), (std::vector<int64_t>{5}));
  EXPECT_EQ(group_along(sizes, 5, MeshAxis::kEp), (std::vector<int64_t>{4, 5}));
  EXPECT_EQ(group_along(sizes, 13, MeshAxis::kEdp), (std::vector<int64_t>{9, 11, 13, 15}));
  EXPECT_EQ(coordinate(sizes, 13, MeshAxis::kPp), 1);
  EXPECT_EQ(coordinate(sizes, 13, MeshAxis::kDp), 2);
  EXPECT_EQ(coordinate(sizes, 13, MeshAxis::kTp), 1);
}

TEST(MeshLayout, CoordinatesNameEveryRankOnce) {
  const ParallelSizes sizes = parallel_sizes(48, 2, 3, 4, 2);
  std::set<std::vector<int64_t>> dense;
  std::set<std::vector<int64_t>> expert;
  for (int64_t rank = 0; rank < sizes.world; ++rank) {
    const auto at = [&](MeshAxis axis) { return coordinate(sizes, rank, axis); };
    const std::vector<int64_t> d{at(MeshAxis::kTp), at(MeshAxis::kDp), at(MeshAxis::kPp)};
    const std::vector<int64_t> e{at(MeshAxis::kTpe), at(MeshAxis::kEp), at(MeshAxis::kEdp),
                                 at(MeshAxis::kPp)};
    EXPECT_EQ(d[0] + sizes.tp * (d[1] + sizes.dp * d[2]), rank);
    EXPECT_EQ(e[0] + sizes.tpe * (e[1] + sizes.ep * (e[2] + sizes.edp * e[3])), rank);
    dense.insert(d);
    expert.insert(e);
  }
  EXPECT_EQ(dense.size(), 48u);
  EXPECT_EQ(expert.size(), 48u);
}

TEST(MeshLayout, RefusesWhatDoesNotFit) {
  EXPECT_EQ(config_error([] { parallel_sizes(6, 4, 1, 1, 1); }),
            "the number of ranks (6) must be a multiple of tensor-model-parallel-size (4) times "
            "pipeline-model-parallel-size (1)");
  EXPECT_EQ(config_error([] { parallel_sizes(8, 1, 1, 3, 2); }),
            "the number of ranks (8) must be a multiple of expert-model-parallel-size (3) times "
            "tensor-model-parallel-for-expert (2) times pipeline-model-parallel-size (1)");
  EXPECT_EQ(config_error([] { parallel_sizes(8, 0, 1, 1, 1); }),
            "tensor-model-parallel-size (0) must be at least 1");
  EXPECT_NE(config_error([] { parallel_sizes(8, int64_t{1} << 62, 4, 1, 1); }), "");
}

TEST(MeshLayout, CountsTheMicroBatches) {
  const ParallelSizes sizes = parallel_sizes(4, 1, 1, 1, 1);
  EXPECT_EQ(num_micro_batches(sizes, 2, 24), 3);
  EXPECT_EQ(config_error([&] { num_micro_batches(sizes, 2, 12); }),
            "global-batch-size (12) must be a multiple of micro-batch-size (2) times the "
            "data-parallel ranks (4)");
}

TEST(MeshLayout, GroupsAlongSeveralAxes) {
  const ParallelSizes sizes = parallel_sizes(16, 2, 2, 2, 2);  // dp 4, edp 2
  using Axis = MeshAxis;
  const std::vector<int64_t> second_stage{8, 9, 10, 11, 12, 13, 14, 15};
  EXPECT_EQ(group_of(sizes, 13, {Axis::kTp, Axis::kDp}), second_stage);
  EXPECT_EQ(group_of(sizes, 13, {Axis::kDp, Axis::kTp}),
            (std::vector<int64_t>{8, 10, 12, 14, 9, 11, 13, 15}))
      << "the first axis is fastest";
  EXPECT_EQ(group_of(sizes, 6, {Axis::kTpe, Axis::kEp}), (std::vector<int64_t>{4, 5, 6, 7}));
  EXPECT_EQ(group_of(sizes, 6, {Axis::kTpe, Axis::kEdp}), (std::vector<int64_t>{2, 3, 6, 7}));
  EXPECT_EQ(group_of(sizes, 6, {Axis::kEp}), group_along(sizes, 6, Axis::kEp));
  EXPECT_EQ(group_of(sizes, 6, {}), (std::vector<int64_t>{6}));
  EXPECT_EQ(group_of(sizes, 6, {Axis::kTp, Axis::kDp, Axis::kPp}).size(), 16u);
  EXPECT_THROW(group_of(sizes, 6, {Axis::kTp, Axis::kEp}), InternalError);
  EXPECT_TRUE(leads_group(sizes, 8, {Axis::kTp, Axis::kDp}));
  EXPECT_FALSE(leads_group(sizes, 9, {Axis::kTp, Axis::kDp}));
}

TEST(MeshLayout, DescribesTheGroups) {
  EXPECT_EQ(describe_groups(parallel_sizes(8, 2, 1, 4, 1)),
            "groups: TP 0-1 2-3 4-5 6-7; DP 0,2,4,6 1,3,5,7; stage 0-7; EP 0-3 4-7; EP x TPE 0-3 "
            "4-7; EDP 0,4 1,5 2,6 3,7");
  EXPECT_EQ(describe_groups(parallel_sizes(4, 1, 2, 1, 2)),
            "groups: DP 0-1 2-3; stage 0-1 2-3; PP 0,2 1,3; TPE 0-1 2-3; EP x TPE 0-1 2-3");
  EXPECT_EQ(describe_groups(parallel_sizes(64, 4, 1, 8, 1)),
            "groups of rank 0: TP 0-3; DP 0,4..60; stage 0-63; EP 0-7; EP x TPE 0-7; EDP "
            "0,8,16,24,32,40,48,56");
  EXPECT_EQ(describe_groups(parallel_sizes(1, 1, 1, 1, 1)), "groups: none");
}

}  // namespace
}  // namespace moetron
