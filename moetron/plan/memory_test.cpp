#include "moetron/plan/memory.h"

#include <gtest/gtest.h>

#include "moetron/arch/inventory.h"
#include "moetron/plan/plan_test_data.h"

namespace moetron {
namespace {

TEST(Memory, EveryParameterIsOnSomeStage) {
  for (const std::string layout :
       {"--expert-model-parallel-size 1", "--tensor-model-parallel-size 2"}) {
    const Options options = deepseek_options(layout + " --first-k-dense-replace 1");
    const RunSpec spec = run_spec(options);
    const PipelineSettings& pipeline = spec.pipeline;
    double held = 0;
    double tensor_parallel = 0;
    for (const StageParameters& stage : stage_parameters(spec, pipeline.stages)) {
      held += stage.dense + stage.buffers + stage.experts * static_cast<double>(spec.sizes.ep);
      tensor_parallel += stage.dense * static_cast<double>(spec.sizes.tp) + stage.buffers +
                         stage.experts * static_cast<double>(spec.sizes.ep);
    }
    const auto all = static_cast<double>(count_parameters(tensor_inventory(spec.model)));
    if (spec.sizes.tp == 1) {
      EXPECT_DOUBLE_EQ(held, all);
    }
    // Norms and routers are whole on both ranks.
    EXPECT_GE(tensor_parallel, all);
    EXPECT_LE(tensor_parallel, 1.001 * all);
  }
}

TEST(Memory, ATiedTableIsCopiedWhereTheHeadIsOnAnotherRank) {
  RunSpec spec = run_spec(qwen_options("--num-layers 8"));
  spec.model.tie_word_embeddings = true;
  const double table = static_cast<double>(spec.model.vocab_size * spec.model.hidden_size);
  const auto bytes_of_tie = [&](const std::string& scheduler, size_t rank) {
    const PipelineSettings pipeline =
        run_spec(qwen_options("--num-layers 8 " + scheduler)).pipeline;
    auto parameters = stage_parameters(spec, pipeline.stages);
    const Schedule schedule = make_schedule(pipeline.request);
    const RankMemory with = memory_of(spec, schedule, pipeline.stages, parameters)[rank];
    for (StageParameters& stage : parameters) stage.tied = 0;
    const RankMemory without = memory_of(spec, schedule, pipeline.stages, parameters)[rank];
    EXPECT_EQ(with.optimizer, without.optimizer);
    return std::pair(with.weights - without.weights, with.gradients - without.gradients);
  };
  EXPECT_EQ(bytes_of_tie("", 3), std::pair(2 * table, 4 * table));
  EXPECT_EQ(bytes_of_tie("", 0), std::pair(0.0, 0.0));
  EXPECT_EQ(bytes_of_tie("--scheduler dualpipev", 0), std::pair(0.0, 4 * table));
}

// Bytes of a layer and micro-batch of 4096 tokens that were counted by hand with the expert
// activation recomputed: 0.75 GB at heads of 128, and 1.7 GB.
TEST(Memory, ActivationsOfALayerAsCountedByHand) {
  const StageLayers one_layer{2, 1, false, false};
  const RunSpec qwen = run_spec(qwen_options("--num-layers 4 --kv-channels 128"));
  EXPECT_NEAR(activation_bytes(qwen, one_layer) / 1e9, 0.75, 0.02);
  const RunSpec deepseek = run_spec(deepseek_options(""));
  EXPECT_NEAR(activation_bytes(deepseek, one_layer) / 1e9, 1.7, 0.05);
}

TEST(Memory, RecomputeKeepsLess) {
  const StageLayers one_layer{2, 1, false, false};
  const auto bytes = [&](const std::string& more) {
    return activation_bytes(run_spec(qwen_options("--num-layers 4 " + more)), one_layer);
  };
  EXPECT_EQ(bytes("--recompute-granularity full"), 2.0 * 4096 * 4096);
  EXPECT_EQ(bytes("--recompute-granularity full --recompute-num-layers 2"), 4096.0 * 4096);
  EXPECT_LT(bytes("--moe-layer-recompute"), bytes("--mlp-recompute"));
  EXPECT_DOUBLE_EQ(bytes("") - bytes("--mlp-recompute"), 2.0 * 4096 * 8 * 2 * 1536);
  // What tests/lean_test.cpp finds that norms leave out.
  const double kept = activation_bytes(run_spec(deepseek_options("")), one_layer);
  const double fewer = activation_bytes(run_spec(deepseek_options("--mla-fuse-qkv")), one_layer);
  EXPECT_DOUBLE_EQ(kept - fewer, 2.0 * 4096 * (7168 + 1536 + 512));
}

TEST(Memory, AChunkCountsFromItsForwardThroughItsWeightGradients) {
  const Options options = qwen_options(
      "--num-layers 8 --scheduler dualpipev --virtual-hetero-pipeline-stages 2 1 1 1 0 1 1 1 "
      "--num-micro-batches 16");
  const RunSpec spec = run_spec(options);
  const PipelineSettings& pipeline = spec.pipeline;
  const Schedule schedule = make_schedule(pipeline.request);
  const std::vector<RankMemory> memory =
      memory_of(spec, schedule, pipeline.stages, stage_parameters(spec, pipeline.stages));
  const double layer = activation_bytes(spec, {1, 1, false, false});
  // Rank 2: 9 chunk-micro-batches of one layer each.
  EXPECT_DOUBLE_EQ(memory[2].activations, 9 * layer);
  // Rank 0: at most 8 of chunk 0, of two layers each, and what the head keeps of chunk 1.
  EXPECT_GT(memory[0].activations, 16 * layer);
}

TEST(Memory, ADistributedOptimizerDividesItsStates) {
  RunSpec spec = run_spec(qwen_options("--num-layers 8 --expert-model-parallel-size 8"));
  const std::vector<StageLayers> stages{{0, 8, true, true}};
  const StageParameters divided = stage_parameters(spec, stages)[0];
  EXPECT_NEAR(divided.updated, divided.dense / 16.0 + divided.experts / 2.0, 1);
  spec.optimizer.distributed = false;
  const StageParameters whole = stage_parameters(spec, stages)[0];
  EXPECT_EQ(whole.updated, whole.dense + whole.experts);
}

}  // namespace
}  // namespace moetron
