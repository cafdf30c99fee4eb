#include "moetron/cli/nearest_fit.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/plan/memory.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const RunFacts kFacts{.world_size = 8};

Options options(const std::string& more) {
  return parse(
             "pretrain --model-family qwen --num-layers 8 --hidden-size 2048 --ffn-hidden-size "
             "6144 "
             "--num-attention-heads 32 --num-query-groups 4 --kv-channels 128 --vocab-size 151936 "
             "--num-experts 64 --moe-router-topk 8 --moe-ffn-hidden-size 768 --seq-length 4096 "
             "--micro-batch-size 2 --global-batch-size 64 --train-iters 10 --lr 1e-4 --data-path d "
             "--expert-model-parallel-size 4 " +
             more)
      .options;
}

double needed(const std::string& more) {
  const std::vector<RankMemory> memory = memory_of(resolve_run(options(more), kFacts));
  return memory[static_cast<size_t>(fullest_rank(memory))].total();
}

// With as much memory as the run needs with `enough`, the cheapest change that is enough.
std::string found(const std::string& enough) {
  Hardware hardware = built_in_hardware();
  hardware.memory = needed(enough);
  return nearest_fit(options(""), kFacts, hardware);
}

TEST(NearestFit, TakesTheChangeThatCostsLeast) {
  EXPECT_THAT(found("--use-distributed-optimizer"),
              StartsWith("it fits with --use-distributed-optimizer ("));
  // States divided among two or eight ranks leave more than recomputation does here.
  EXPECT_LT(needed("--use-distributed-optimizer"), needed("--moe-layer-recompute"));
  EXPECT_THAT(found("--use-distributed-optimizer --mlp-recompute"),
              StartsWith("it fits with --use-distributed-optimizer --mlp-recompute ("));
}

TEST(NearestFit, NamesNothingThatIsOnAlready) {
  Hardware hardware = built_in_hardware();
  const std::string on = "--use-distributed-optimizer --recompute-granularity full ";
  hardware.memory = needed(on + "--micro-batch-size 1");
  EXPECT_THAT(nearest_fit(options(on), kFacts, hardware),
              StartsWith("it fits with --micro-batch-size 1 ("));
}

TEST(NearestFit, TriesOtherLayoutsLast) {
  const std::string most =
      "--use-distributed-optimizer --recompute-granularity full --micro-batch-size 1 "
      "--optimizer hybridadam --optimizer-offload-policy static --optimizer-offload-fraction 1 ";
  const std::string piped = most + "--pipeline-model-parallel-size 2";
  ASSERT_LT(needed(piped), needed(most));
  const std::string text = found(piped);
  EXPECT_THAT(text, StartsWith("it fits with "));
  EXPECT_THAT(text, HasSubstr("-parallel-size "));
}

TEST(NearestFit, KeepsThePipelineOfStagesWithNumbers) {
  Hardware hardware = built_in_hardware();
  hardware.memory = 3e9;
  const std::string staged = "--pipeline-model-parallel-size 2 --hetero-pipeline-stages 3 5 ";
  EXPECT_THAT(nearest_fit(options(staged), kFacts, hardware),
              Not(HasSubstr("pipeline-model-parallel-size")));
}

TEST(NearestFit, SaysWhatComesClosest) {
  Hardware hardware = built_in_hardware();
  hardware.memory = 1e9;
  const std::string text = nearest_fit(options(""), kFacts, hardware);
  EXPECT_THAT(text, StartsWith("nothing that was tried fits: --"));
  EXPECT_THAT(text, HasSubstr(" comes closest, with "));
}

}  // namespace
}  // namespace moetron
