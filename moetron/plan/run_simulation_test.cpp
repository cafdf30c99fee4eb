#include "moetron/plan/run_simulation.h"

#include <chrono>
#include <gmock/gmock.h>
#include <sstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/plan/plan_test_data.h"

namespace moetron {
namespace {

using ::testing::HasSubstr;

std::string output_of(const Options& options) {
  std::ostringstream out;
  run_simulation(resolve_simulation(options), out);
  return out.str();
}

Json json_of(const std::string& words) {
  return parse_json(output_of(parse("simulate --json " + words).options), "output");
}

TEST(RunSimulation, UnitCostsAreThoseOfTheLiterature) {
  const Json json =
      json_of("--scheduler dualpipev --pipeline-model-parallel-size 4 --num-micro-batches 12");
  EXPECT_EQ(json["scheduler"], "dualpipev");
  EXPECT_EQ(json["makespan"], 78);
  EXPECT_NEAR(json["bubble_fraction"].get<double>(), 1 - 72.0 / 78, 1e-12);
  EXPECT_EQ(json["peak_activations"], Json({9, 9, 9, 9}));
  const Json waits = json_of(
      "--scheduler dualpipev --pipeline-model-parallel-size 4 --num-micro-batches 12 "
      "--communication 0.5");
  EXPECT_EQ(waits["makespan"], 88.5);
}

TEST(RunSimulation, LayoutsDecideTheKindAsInTraining) {
  const std::string plain = "--pipeline-model-parallel-size 4 --num-micro-batches 12 ";
  EXPECT_EQ(json_of(plain)["makespan"], 90);
  const Json interleaved = json_of(plain + "--hetero-pipeline-stages 2 3 3 3 2 3 3 3");
  EXPECT_EQ(interleaved["scheduler"], "interleaved");
  EXPECT_EQ(interleaved["makespan"], 81);
  EXPECT_THROW(json_of(plain + "--scheduler zb-v --hetero-pipeline-stages 2 3 3 3"), ConfigError);
  EXPECT_THROW(json_of("--scheduler dualpipev --pipeline-model-parallel-size 4 "
                       "--num-micro-batches 6"),
               ConfigError);
}

TEST(RunSimulation, TheSummaryIsForPeople) {
  const std::string unit =
      output_of(parse("simulate --pipeline-model-parallel-size 2 --num-micro-batches 4").options);
  EXPECT_THAT(unit, HasSubstr("1f1b, 2 ranks, 4 micro-batches\n"));
  EXPECT_THAT(unit, HasSubstr("makespan         30 "));
  const std::string model = output_of(qwen_options("--num-layers 8 --num-micro-batches 16"));
  EXPECT_THAT(model, HasSubstr("TFLOP/s/GPU"));
  EXPECT_THAT(model, HasSubstr("of 80.0 GB\n"));
}

TEST(RunSimulation, AModelIsTimedAndWeighed) {
  const Json json = json_of(
      "--config configs/published/qwen3_235b.toml --num-layers 8 "
      "--pipeline-model-parallel-size 4 --expert-model-parallel-size 8 "
      "--num-micro-batches 16");
  EXPECT_EQ(json["layers"], Json({2, 2, 2, 2}));
  EXPECT_GT(json["step_time"], json["makespan"]) << "the optimizer comes after it";
  const double tokens = 16 * 4096 / json["step_time"].get<double>() / 4;
  EXPECT_NEAR(json["tokens_per_second_per_gpu"].get<double>(), tokens, 1e-6 * tokens);
  EXPECT_EQ(json["memory"].size(), 4u);
  EXPECT_GT(json["exposed_communication"][0], 0);
}

// What overlaps is the step's matter, not the dispatcher's name.
TEST(RunSimulation, TheSameAlgorithmTakesTheSameTimeUnderEitherName) {
  const std::string run =
      "--config configs/published/qwen3_235b.toml --num-layers 16 --scheduler dualpipev "
      "--pipeline-model-parallel-size 4 --expert-model-parallel-size 8 --num-micro-batches 16 "
      "--moe-token-dispatcher-type ";
  for (const char* kind : {"allgather_fused", "alltoall", "deepep"}) {
    const Json plain = json_of(run + kind), overlapped = json_of(run + "overlap_" + kind);
    EXPECT_EQ(plain["makespan"], overlapped["makespan"]) << kind;
    EXPECT_LT(plain["exposed_communication"][0], 0.5 * plain["communication"][0].get<double>())
        << kind;
  }
}

// A second on an idle processor of today; what is quadratic takes minutes.
TEST(RunSimulation, ManyRanksAndMicroBatchesEndSoon) {
  const auto begin = std::chrono::steady_clock::now();
  const Json json = json_of(
      "--config configs/published/qwen3_235b.toml --num-layers 128 "
      "--scheduler dualpipev --pipeline-model-parallel-size 64 "
      "--num-micro-batches 4096");
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  EXPECT_EQ(json["peak_activations"][63], 129);
  EXPECT_LT(seconds.count(), 60);
}

}  // namespace
}  // namespace moetron
