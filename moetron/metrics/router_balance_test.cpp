#include "moetron/metrics/router_balance.h"

#include <cmath>

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr double kRounding = 0x1p-49;  // a few of fp64: logarithms differ between processors

TEST(LayerLoad, AnEvenLoadIsOne) {
  const LayerLoad load = layer_load(3, {7, 7, 7});
  EXPECT_EQ(load.layer, 3);
  EXPECT_EQ(load.load, (std::vector<double>{0.333333, 0.333333, 0.333333}));
  EXPECT_EQ(load.num_dead, 0);
  EXPECT_NEAR(load.entropy, 1.0, kRounding);
  EXPECT_LE(load.entropy, 1.0);
  EXPECT_EQ(load.imbalance, 1.0);
}

TEST(LayerLoad, CountsWhatIsUneven) {
  const LayerLoad load = layer_load(0, {6, 0, 2, 0});
  EXPECT_EQ(load.load, (std::vector<double>{0.75, 0.0, 0.25, 0.0}));
  EXPECT_EQ(load.num_dead, 2);
  EXPECT_EQ(load.imbalance, 3.0);  // 6 rows, 2 in the mean
  const double entropy = -(0.75 * std::log(0.75) + 0.25 * std::log(0.25));
  EXPECT_NEAR(load.entropy, entropy / std::log(4.0), kRounding);
}

TEST(LayerLoad, Extremes) {
  const LayerLoad collapsed = layer_load(0, {0, 9});
  EXPECT_EQ(collapsed.entropy, 0.0);
  EXPECT_EQ(collapsed.imbalance, 2.0);
  const LayerLoad nothing = layer_load(0, {0, 0, 0});
  EXPECT_EQ(nothing.num_dead, 3);
  EXPECT_EQ(nothing.entropy, 0.0);
  EXPECT_EQ(nothing.imbalance, 0.0);
  EXPECT_EQ(nothing.load, (std::vector<double>{0.0, 0.0, 0.0}));
  EXPECT_EQ(layer_load(0, {5}).entropy, 1.0);
  EXPECT_THROW(layer_load(0, {}), InternalError);
  EXPECT_THROW(layer_load(0, {1, -1}), InternalError);
}

TEST(RouterBalance, TakesMeanAndWorstOfTheLayers) {
  const RouterBalance balance = router_balance({layer_load(1, {4, 4}), layer_load(2, {8, 0})});
  EXPECT_EQ(balance.max_load, 2.0);
  EXPECT_EQ(balance.mean_load, 1.5);
  EXPECT_EQ(balance.idle_share, 0.25);
  EXPECT_EQ(balance.num_dead, 1);
  EXPECT_NEAR(*balance.entropy, 0.5, kRounding);
  ASSERT_EQ(balance.layers.size(), 2u);
  EXPECT_EQ(balance.layers[1].layer, 2);
  EXPECT_THROW(router_balance({}), InternalError);
}

}  // namespace
}  // namespace moetron
