#include "moetron/arch/mesh_layout.h"

#include <set>

#include "moetron/arch/arch_test_data.h"

namespace moetron {
namespace {

template <class Call>
std::string config_error(const Call& call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

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
            "tensor-model-parallel-size (4) times pipeline-model-parallel-size (1) must divide the "
            "number of ranks (6)");
  EXPECT_EQ(config_error([] { parallel_sizes(8, 1, 1, 3, 2); }),
            "expert-model-parallel-size (3) times tensor-model-parallel-for-expert (2) times "
            "pipeline-model-parallel-size (1) must divide the number of ranks (8)");
  EXPECT_EQ(config_error([] { parallel_sizes(8, 0, 1, 1, 1); }),
            "tensor-model-parallel-size (0) must be at least 1");
  EXPECT_NE(config_error([] { parallel_sizes(8, int64_t{1} << 62, 4, 1, 1); }), "");
}

TEST(MeshLayout, ChecksTheModelAndTheBatch) {
  Json json = qwen3_moe_json();
  json["num_experts"] = 128;
  const ModelConfig config = read_model_config(json, "config.json");
  EXPECT_EQ(config_error([&] { check_layout(parallel_sizes(12, 1, 1, 12, 1), config); }),
            "expert-model-parallel-size (12) must divide num-experts (128)");
  EXPECT_EQ(config_error([&] { check_layout(parallel_sizes(4, 4, 1, 1, 1), config); }),
            "tensor-model-parallel-size (4) must divide num-query-groups (2)");
  EXPECT_EQ(config_error([&] { check_layout(parallel_sizes(8, 1, 8, 1, 1), config); }),
            "pipeline-model-parallel-size (8) must not exceed num-layers (4)");
  const ModelConfig dense = read_model_config(llama_json(), "config.json");
  EXPECT_NE(config_error([&] { check_layout(parallel_sizes(2, 1, 1, 2, 1), dense); }), "");
  check_layout(parallel_sizes(16, 2, 2, 2, 2), config);

  const ParallelSizes sizes = parallel_sizes(4, 1, 1, 1, 1);
  EXPECT_EQ(num_micro_batches(sizes, 2, 24), 3);
  EXPECT_EQ(config_error([&] { num_micro_batches(sizes, 2, 12); }),
            "micro-batch-size (2) times data-parallel size (4) must divide global-batch-size (12)");
}

}  // namespace
}  // namespace moetron
