#include "moetron/plan/dispatch_time.h"

#include <gtest/gtest.h>

#include "moetron/base/units.h"
#include "moetron/plan/plan_test_data.h"

namespace moetron {
namespace {

constexpr int64_t kGpusPerNode = 8;

DispatchVolume qwen(const std::string& more) {
  return dispatch_volume(run_spec(qwen_options("--num-layers 8 " + more)), kGpusPerNode);
}

// Rows of 4096 x 2 bytes, 4096 of them, 8 experts each: 268 MB if every expert gets one.
TEST(DispatchVolume, OneNodeHasNoNetwork) {
  const std::string in_node = "--expert-model-parallel-size 8 --dispatch-scheme ";
  const double all = 4096.0 * 4096 * 2;
  EXPECT_DOUBLE_EQ(qwen(in_node + "expert").node, all * 8 * 7 / 8);
  EXPECT_DOUBLE_EQ(qwen(in_node + "allgather").node, all * 7);
  // Of 8 ranks with 16 experts each, 8 experts of a token are on 5.35 ranks.
  EXPECT_NEAR(qwen(in_node + "rank").node, all * 5.35 * 7 / 8, 0.01 * all);
  EXPECT_NEAR(qwen(in_node + "node").node, all * 5.35 * 7 / 8, 0.01 * all);
  for (const char* scheme : {"expert", "rank", "node", "allgather"})
    EXPECT_EQ(qwen(in_node + scheme).network, 0) << scheme;
}

// The volumes of schedules that were counted by hand for two nodes.
TEST(DispatchVolume, TwoNodesOfDeepseek) {
  const auto deepseek = [](const std::string& scheme) {
    return dispatch_volume(run_spec(deepseek_options("--dispatch-scheme " + scheme)), kGpusPerNode);
  };
  EXPECT_NEAR(deepseek("expert").network / kMega, 235, 1);
  EXPECT_NEAR(deepseek("rank").network / kMega, 190, 5);
  EXPECT_NEAR(deepseek("node").network / kMega, 59, 1);
  EXPECT_NEAR(deepseek("allgather").node / kMega, 881, 1);
  EXPECT_NEAR(deepseek("allgather").network / kMega, 59, 1) << "eight links share a node's traffic";
}

TEST(DispatchVolume, EveryOptionOfTheDispatcherHasItsScheme) {
  const auto scheme = [](const char* dispatcher) {
    return run_spec(qwen_options(std::string("--num-layers 8 --expert-model-parallel-size 8 "
                                             "--moe-token-dispatcher-type ") +
                                 dispatcher))
        .experts.scheme;
  };
  EXPECT_EQ(scheme("allgather_fused"), DispatchScheme::kAllGather);
  EXPECT_EQ(scheme("overlap_alltoall"), DispatchScheme::kPerExpert);
  EXPECT_EQ(scheme("deepep"), DispatchScheme::kPerRank);
}

TEST(DispatchTime, TheSlowerLinkAndTheOverheadCount) {
  Hardware hardware;
  hardware.gpus_per_node = kGpusPerNode;
  hardware.node_rate = 1e9;
  hardware.network_rate = 0.5e9;
  hardware.dispatch_overhead = 0.25;
  const auto seconds = [&](const std::string& more) {
    return dispatch_time(run_spec(qwen_options("--num-layers 8 " + more)), hardware);
  };
  EXPECT_EQ(seconds("--expert-model-parallel-size 1"), 0);
  const DispatchVolume volume = qwen("--expert-model-parallel-size 16 --dispatch-scheme expert");
  EXPECT_GT(volume.network / 0.5e9, volume.node / 1e9);
  EXPECT_DOUBLE_EQ(seconds("--expert-model-parallel-size 16 --dispatch-scheme expert"),
                   volume.network / 0.5e9 + 0.25);
}

TEST(DispatchTime, ADispatcherThatTheFileNamesHasItsOwnOverhead) {
  Hardware hardware = read_hardware("configs/hardware/h100-ib400.toml");
  hardware.dispatch_overhead = 1;
  hardware.dispatch_overheads = {{TokenDispatcher::kAllToAll, 2}, {TokenDispatcher::kDeepep, 3}};
  const auto overhead = [&](const std::string& dispatcher) {
    const RunSpec spec = run_spec(qwen_options(
        "--num-layers 8 --expert-model-parallel-size 8 --moe-token-dispatcher-type " + dispatcher));
    const DispatchVolume volume = dispatch_volume(spec, hardware.gpus_per_node);
    return dispatch_time(spec, hardware) - volume.node / hardware.node_rate;
  };
  EXPECT_NEAR(overhead("allgather"), 1, 1e-9);
  EXPECT_NEAR(overhead("allgather_fused"), 1, 1e-9);
  EXPECT_NEAR(overhead("alltoall"), 2, 1e-9);
  EXPECT_NEAR(overhead("overlap_alltoall"), 2, 1e-9);
  EXPECT_NEAR(overhead("deepep"), 3, 1e-9);
  EXPECT_NEAR(overhead("overlap_deepep"), 3, 1e-9);
  EXPECT_NEAR(overhead("deepep --dispatch-scheme expert"), 1, 1e-9) << "is not how deepep sends";
}

}  // namespace
}  // namespace moetron
