#include "moetron/plan/two_streams.h"

#include <gtest/gtest.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

TEST(TwoStreams, OperationsWaitForTheirStreamAndForOthers) {
  const StreamTimes times =
      run_streams({{false, 2, {}}, {true, 3, {0}}, {false, 1, {}}, {false, 1, {1}}, {true, 0, {3}}},
                  /*compute_rate=*/1);
  EXPECT_EQ(times.ends, (std::vector<double>{2, 5, 3, 6, 6}));
  EXPECT_EQ(times.duration, 6);
  EXPECT_EQ(times.communication, 3);
  EXPECT_EQ(times.exposed, 2);
}

TEST(TwoStreams, CommunicationTakesItsShareOfCompute) {
  const StreamTimes times = run_streams({{true, 4, {}}, {false, 4, {}}}, /*compute_rate=*/0.75);
  EXPECT_DOUBLE_EQ(times.ends[0], 4);
  EXPECT_DOUBLE_EQ(times.ends[1], 5) << "three quarters of 4 s, then one second alone";
  EXPECT_EQ(times.exposed, 0);
}

TEST(TwoStreams, ACircleIsAnError) {
  EXPECT_THROW(run_streams({{false, 1, {1}}, {true, 1, {0}}}, 1), InternalError);
}

// Four layers of DeepSeek's published trace of a block (H800, 64 expert ranks), as issued: its
// operations on the two streams take 129.0 ms.
TEST(TwoStreams, TheTraceOfABlockIsReproduced) {
  std::vector<StreamOperation> operations;
  std::vector<size_t> no_combine;
  std::vector<size_t> combined;   // the F's combine of the layer before
  std::vector<size_t> attention;  // the B's attention of the layer before
  const auto add = [&](bool communicates, double seconds, std::vector<size_t> after) {
    operations.push_back({communicates, seconds, std::move(after)});
    return operations.size() - 1;
  };
  for (int layer = 0; layer < 4; ++layer) {
    const size_t combine_b = add(true, 5.9, attention);
    const size_t attention_f = add(false, 4.4, combined);
    const size_t experts_b = add(false, 5.3, {combine_b});
    const size_t dispatch_f = add(true, 6.9, {attention_f});
    const size_t dispatch_b = add(true, 7.6, {experts_b});
    add(false, 5.1, {experts_b});
    const size_t experts_f = add(false, 4.6, {dispatch_f});
    attention = {add(false, 9.4, {dispatch_b})};
    add(false, 2.4, attention);
    combined = {add(true, 8.5, {experts_f})};
  }
  EXPECT_NEAR(run_streams(operations, 1).duration, 129.0, 0.05 * 129.0);
}

}  // namespace
}  // namespace moetron
