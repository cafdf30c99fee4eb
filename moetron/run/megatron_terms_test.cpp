#include "moetron/run/megatron_terms.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A DeepSeek-like model of 8 layers.
std::string shaped(const std::string& more) {
  return "pretrain --model-family deepseek --vocab-size 256 --seq-length 64 --micro-batch-size 1 "
         "--global-batch-size 8 --lr 1e-3 --data-path d --num-layers 8 --hidden-size 64 "
         "--ffn-hidden-size 128 --num-attention-heads 4 --kv-lora-rank 16 --num-experts 8 "
         "--moe-router-topk 2 --moe-ffn-hidden-size 32 --moe-router-deepseekv3 " +
         more;
}

RunSpec resolved(const std::string& more, int64_t world_size = 1) {
  return resolve_run(parse(shaped(more)).options, {.world_size = world_size});
}

std::string refusal(const std::string& more, int64_t world_size = 1) {
  return config_error([&] { resolved(more, world_size); });
}

std::vector<int64_t> layers_of(const RunSpec& spec) {
  std::vector<int64_t> layers;
  for (const StageLayers& stage : spec.pipeline.stages) layers.push_back(stage.count);
  return layers;
}

TEST(MegatronTerms, SamplesAreSteps) {
  const RunSpec spec = resolved("--train-samples 87");
  EXPECT_EQ(spec.steps.train, 10);
  EXPECT_EQ(spec.lr.decay_iters, 87 / 8.0);
  EXPECT_EQ(spec.options["training"]["train-samples"], 87) << "recorded as it was given";
  EXPECT_EQ(spec.options["training"]["train-iters"], 0);
  const RunSpec ends =
      resolved("--train-samples 80 --lr-warmup-samples 12 --lr-decay-samples 60 --min-lr 1e-4");
  EXPECT_DOUBLE_EQ(learning_rate(ends.lr, 1), 1e-3 * 8 / 12);
  EXPECT_DOUBLE_EQ(learning_rate(ends.lr, 4), 1e-4 + (1 - (32.0 - 12) / (60 - 12)) * 9e-4);
  EXPECT_DOUBLE_EQ(learning_rate(ends.lr, 8), 1e-4);
  const RunSpec share =
      resolved("--train-iters 10 --lr-warmup-fraction 0.25 --lr-warmup-init 1e-4");
  EXPECT_DOUBLE_EQ(learning_rate(share.lr, 0), 1e-4);
  EXPECT_DOUBLE_EQ(learning_rate(share.lr, 2), 1e-4 + 9e-4 * 2 / 2.5);
  EXPECT_THAT(refusal("--train-samples 80 --train-iters 10"), HasSubstr("both say how long"));
  EXPECT_THAT(refusal("--train-samples 7"), HasSubstr("at least global-batch-size (8)"));
  EXPECT_THAT(refusal("--train-samples 80 --lr-warmup-iters 2"), HasSubstr("lr-warmup-samples"));
  EXPECT_THAT(refusal("--train-iters 10 --lr-warmup-samples 2"), HasSubstr("train-samples"));
  EXPECT_THAT(refusal("--train-samples 80 --lr-warmup-samples 80"),
              HasSubstr("lr-warmup-samples (80) must be smaller than train-samples (80)"));
  EXPECT_THAT(refusal("--train-iters 10 --lr-warmup-iters 1 --lr-warmup-fraction 0.1"),
              HasSubstr("lr-warmup-fraction (0.1)"));
  EXPECT_THAT(refusal("--train-iters 10 --lr-warmup-init 1"), HasSubstr("must be at most lr"));
}

TEST(MegatronTerms, MinutesOfATimeout) {
  EXPECT_EQ(parse(shaped("--train-iters 1 --distributed-timeout-minutes 2.5"))
                .options.runtime.comm_timeout,
            150);
  EXPECT_EQ(resolved("--train-iters 1 --exit-duration-in-mins 3").steps.exit_after, 180);
}

TEST(MegatronTerms, PatternsOfExpertLayers) {
  EXPECT_EQ(expert_layers("([0]*2+[1]*3)", 9), (std::vector<bool>{false, false, true, true, true}));
  EXPECT_EQ(expert_layers("[0,1]*2", 4), (std::vector<bool>{false, true, false, true}));
  EXPECT_EQ(expert_layers("2", 3), (std::vector<bool>{true, false, true}));
  for (const char* wrong : {"0", "-1", "x", "[2]", "[1]*x", "[1", "[1]+", "[1][1]", "1,1",
                            "[1]*999999999999", "[1]*90000+[1]*90000"})
    EXPECT_THAT(config_error([&] { expert_layers(wrong, 4); }), HasSubstr("moe-layer-freq"))
        << wrong;
  const std::string steps = "--train-iters 10 ";
  EXPECT_EQ(resolved(steps + "--moe-layer-freq ([0]*3+[1]*5)").model.moe->first_k_dense_replace, 3);
  EXPECT_EQ(resolved(steps + "--moe-layer-freq 1").model.moe->first_k_dense_replace, 0);
  EXPECT_THAT(refusal(steps + "--moe-layer-freq 2"), HasSubstr("dense layers come first"));
  EXPECT_THAT(refusal(steps + "--moe-layer-freq [1]*7"), HasSubstr("is of 7 layers"));
  EXPECT_THAT(refusal(steps + "--moe-layer-freq [1]*8 --first-k-dense-replace 1"),
              HasSubstr("contradicts first-k-dense-replace (1)"));
}

TEST(MegatronTerms, WidthOfSharedExperts) {
  const std::string steps = "--train-iters 10 --moe-shared-expert-intermediate-size ";
  EXPECT_EQ(resolved(steps + "64").model.moe->num_shared_experts, 2);
  EXPECT_THAT(refusal(steps + "48"), HasSubstr("must be a multiple of moe-ffn-hidden-size (32)"));
  EXPECT_THAT(refusal(steps + "64 --num-shared-experts 1"),
              HasSubstr("contradicts num-shared-experts (1)"));
}

TEST(MegatronTerms, LayoutsInLetters) {
  EXPECT_THAT(layers_of_layout("Et*3|(tt|)*2L"), ElementsAre(3, 2, 2, 0));
  EXPECT_THAT(layers_of_layout("Ett|t, t|tL"), ElementsAre(2, 2, 1));
  for (const char* wrong :
       {"", "tt|tL", "Ett", "EtL|t", "tE|tL", "Et|x|L", "E(t|L", "Et*x|L", "Et*99999999|L", "EtEL"})
    EXPECT_THAT(config_error([&] { layers_of_layout(wrong); }),
                HasSubstr("pipeline-model-parallel-layout"))
        << wrong;
  EXPECT_THAT(config_error([] { layers_of_layout("Et|mL"); }), HasSubstr("multi-token"));
  const std::string two = "--train-iters 10 --pipeline-model-parallel-size 2 ";
  const RunSpec spec = resolved(two + "--pipeline-model-parallel-layout Et*3|tt|tt|tL", 2);
  EXPECT_THAT(layers_of(spec), ElementsAre(3, 2, 2, 1));
  EXPECT_EQ(spec.pipeline.request.kind, ScheduleKind::kInterleaved);
  EXPECT_THAT(refusal(two + "--pipeline-model-parallel-layout Et*3|tt|tt|t|L", 2),
              HasSubstr("has 5 stages, no multiple"));
  EXPECT_THAT(refusal(two + "--pipeline-model-parallel-layout Et*3|tt|tt|L", 2),
              HasSubstr("has 7 layers, but num-layers is 8"));
  EXPECT_THAT(
      refusal(two + "--pipeline-model-parallel-layout Et*4|t*4L --hetero-pipeline-stages 4 4", 2),
      HasSubstr("give one of them"));
}

TEST(MegatronTerms, UnevenEndsOfThePipeline) {
  const std::string four = "--train-iters 10 --pipeline-model-parallel-size 4 ";
  EXPECT_THAT(layers_of(resolved(four + "--decoder-first-pipeline-num-layers 2", 4)),
              ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(layers_of(resolved(four + "--decoder-first-pipeline-num-layers 1 "
                                        "--decoder-last-pipeline-num-layers 3",
                                 4)),
              ElementsAre(1, 2, 2, 3));
  EXPECT_THAT(layers_of(resolved("--train-iters 10 --pipeline-model-parallel-size 2 --num-layers 6 "
                                 "--account-for-embedding-in-pipeline-split "
                                 "--account-for-loss-in-pipeline-split",
                                 2)),
              ElementsAre(3, 3));
  EXPECT_THAT(layers_of(resolved("--train-iters 10 --pipeline-model-parallel-size 2 --num-layers 7 "
                                 "--account-for-embedding-in-pipeline-split",
                                 2)),
              ElementsAre(3, 4));
  EXPECT_THAT(layers_of(resolved("--train-iters 10 --pipeline-model-parallel-size 2 --num-layers 6 "
                                 "--num-virtual-stages-per-pipeline-rank 2 "
                                 "--account-for-embedding-in-pipeline-split "
                                 "--account-for-loss-in-pipeline-split",
                                 2)),
              ElementsAre(1, 2, 2, 1));
  EXPECT_THAT(refusal(four + "--decoder-first-pipeline-num-layers 4", 4),
              HasSubstr("leaves 4 layers for 3 pipeline ranks"));
  EXPECT_THAT(refusal("--train-iters 10 --decoder-first-pipeline-num-layers 4"),
              HasSubstr("pipeline-model-parallel-size (1)"));
}

TEST(MegatronTerms, ModulesThatAreRecomputed) {
  const auto kind = [](const std::string& more) {
    return resolved("--train-iters 10 " + more).recompute.kind;
  };
  EXPECT_EQ(kind("--recompute-granularity selective"), Recompute::kNothing);
  EXPECT_EQ(kind("--recompute-granularity selective --recompute-modules core_attn moe_act"),
            Recompute::kExpertProduct);
  EXPECT_EQ(kind("--recompute-modules moe_act moe"), Recompute::kMoeLayer);
  EXPECT_EQ(kind("--recompute-granularity full --recompute-modules moe"), Recompute::kLayer);
  EXPECT_THAT(refusal("--train-iters 10 --recompute-modules layernorm"),
              HasSubstr("recompute-modules (layernorm) is not there yet"));
}

TEST(MegatronTerms, MockDataNeedsNoFiles) {
  const std::string words = shaped("--train-iters 10");
  const std::string mock = words.substr(0, words.find("--data-path d ")) +
                           words.substr(words.find("--num-layers")) + " --mock-data";
  EXPECT_TRUE(resolve_run(parse(mock).options, {}).data.mock);
  EXPECT_EQ(invalid(mock), "");
  EXPECT_THAT(invalid(mock + " --data-path d"), HasSubstr("contradict each other"));
}

}  // namespace
}  // namespace moetron
