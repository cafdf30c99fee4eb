// What layers take that ranks divide, over links whose cost is known, and what a plan makes of it.
#include "moetron/bench/divided_layers.h"

#include <chrono>
#include <limits>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/comm/slow_communicator.h"
#include "moetron/comm/thread_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

// Of a machine on which nothing but overheads takes time.
Hardware only_overheads() {
  Hardware rates;
  rates.matrix_rate = rates.grouped_rate = rates.memory_rate = kInfinite;
  rates.attention = {{64, kInfinite, kInfinite}};
  rates.multiprocessors = 1;
  rates.gpus_per_node = 8;
  rates.node_rate = rates.network_rate = kInfinite;
  return rates;
}

// A layer that communicates as long as it computes, about.
Hardware slow_links() {
  Hardware rates = only_overheads();
  rates.matrix_rate = rates.grouped_rate = rates.memory_rate = 1e11;
  rates.attention = {{64, 1e11, 1e11}};
  rates.dispatch_multiprocessors = 0.1;
  rates.node_rate = rates.network_rate = 1e9;
  return rates;
}

TEST(DividedLayers, AnOverheadIsWhatThePlanLacks) {
  const CalibrationShapes shapes = calibration_shapes(8);
  constexpr double kOverhead = 1e-3;
  for (const TokenDispatcher dispatcher : kPlainDispatchers) {
    Hardware rates = slow_links();
    const double without = planned_dispatched(dispatcher, 2, shapes, rates);
    EXPECT_GT(without, planned_whole(shapes, rates)) << "bytes";
    rates.dispatch_overheads[dispatcher] = kOverhead;
    const double with = planned_dispatched(dispatcher, 2, shapes, rates);
    EXPECT_GE(with, without + 4 * kOverhead) << "in the forward nothing hides it";
    const auto found = [&](double seconds) {
      return dispatch_overhead_of(seconds, dispatcher, 2, shapes, slow_links());
    };
    EXPECT_NEAR(found(with), kOverhead, 1e-9) << dispatcher_name(dispatcher);
    EXPECT_EQ(found(without), 0) << "no more than the bytes";
    EXPECT_EQ(found(without / 2), 0);
  }
}

TEST(DividedLayers, ComputeIsAsLongAsMeasuredOfARanksOwn) {
  const CalibrationShapes shapes = calibration_shapes(8);
  Hardware rates = slow_links();
  rates.launch_overhead = 1e-4;
  const double planned = planned_whole(shapes, rates);
  const Hardware slower = with_compute_of(3 * planned, shapes, rates);
  EXPECT_NEAR(planned_whole(shapes, slower), 3 * planned, 1e-9 * planned);
  EXPECT_NEAR(slower.compute_slowdown, 3 * rates.compute_slowdown, 1e-9);
  EXPECT_EQ(slower.node_rate, rates.node_rate);
}

TEST(DividedLayers, OfTensorParallelismEightGathersAndScattersShareIt) {
  const CalibrationShapes shapes = calibration_shapes(8);
  const double planned = planned_tensor(2, shapes, slow_links());
  EXPECT_NEAR(tensor_overhead_of(planned + 8e-3, 2, shapes, slow_links()), 1e-3, 1e-9);
  EXPECT_EQ(tensor_overhead_of(planned, 2, shapes, slow_links()), 0);
  EXPECT_EQ(tensor_overhead_of(planned / 2, 2, shapes, slow_links()), 0);
}

// Two ranks whose operations each take so long.
DividedLayers over_slow_links(double latency, const CalibrationShapes& shapes) {
  const auto world = make_thread_world(2, std::chrono::minutes(5));
  DividedLayers found;
  run_ranks_with(
      2, [&](int rank) { return slow_down(join_thread_world(world, rank), {.latency = latency}); },
      [&](Communicator& ranks) {
        const DividedLayers mine =
            measure_divided_layers(ranks, at::kCPU, {ranks.rank(), 2}, shapes, /*seconds=*/0);
        if (ranks.rank() == 0) found = mine;
      });
  return found;
}

TEST(DividedLayers, EveryDispatcherTakesItsOperationsTime) {
  constexpr double kLatency = 10e-3;  // far longer than such layers compute
  const CalibrationShapes shapes = calibration_shapes(32);
  const DividedLayers found = over_slow_links(kLatency, shapes);
  EXPECT_EQ(found.num_ranks, 2);
  std::map<TokenDispatcher, double> overheads;
  for (size_t i = 0; i < found.dispatched.size(); ++i) {
    const TokenDispatcher dispatcher = kPlainDispatchers[i];
    const double beyond = found.dispatched.at(i).seconds - found.whole.seconds;
    overheads[dispatcher] = dispatch_overhead_of(beyond, dispatcher, 2, shapes, only_overheads());
    // An operation at least for each dispatch and combine, forward and backward.
    EXPECT_GT(overheads[dispatcher], 0.7 * kLatency) << dispatcher_name(dispatcher);
    EXPECT_LT(overheads[dispatcher], 10 * kLatency) << dispatcher_name(dispatcher);
  }
  // Tokens, experts and probabilities apart, and the counts of an all-to-all before its rows.
  const double fused = overheads[TokenDispatcher::kAllGatherFused];
  for (const TokenDispatcher more : {TokenDispatcher::kAllGather, TokenDispatcher::kDeepep})
    EXPECT_GT(overheads[more], fused + 0.2 * kLatency) << dispatcher_name(more);
  ASSERT_TRUE(found.tensor);
  EXPECT_GT(tensor_overhead_of(found.tensor->seconds, 2, shapes, only_overheads()), 0.7 * kLatency);
}

TEST(DividedLayers, RanksThatCannotDivideALayerSaySo) {
  EXPECT_FALSE(over_slow_links(0, calibration_shapes(64)).tensor) << "one head";
}

}  // namespace
}  // namespace moetron
