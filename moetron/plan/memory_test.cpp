#include "moetron/plan/memory.h"

#include <gtest/gtest.h>

#include "moetron/arch/inventory.h"
#include "moetron/plan/activations.h"
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
    for (StageParameters& stage : parameters) stage.tied = stage.tied_grads = 0;
    const RankMemory without = memory_of(spec, schedule, pipeline.stages, parameters)[rank];
    EXPECT_EQ(with.optimizer, without.optimizer);
    return std::pair(with.weights - without.weights, with.gradients - without.gradients);
  };
  EXPECT_EQ(bytes_of_tie("", 3), std::pair(2 * table, 4 * table));
  EXPECT_EQ(bytes_of_tie("", 0), std::pair(0.0, 0.0));
  EXPECT_EQ(bytes_of_tie("--scheduler dualpipev", 0), std::pair(0.0, 4 * table));
}

// What tests/lean_test.cpp measures of a layer and 4096 tokens (benchmarks/cpu-2-cores.md).
TEST(Memory, ActivationsOfALayerAsMeasured) {
  const StageLayers one_layer{2, 1, false, false};
  const RunSpec qwen = run_spec(qwen_options("--num-layers 4 --kv-channels 128"));
  EXPECT_NEAR(activation_bytes(qwen, one_layer).from_forward / 1e9, 0.82, 0.01);
  const RunSpec deepseek = run_spec(deepseek_options("--first-k-dense-replace 0"));
  EXPECT_NEAR(activation_bytes(deepseek, one_layer).from_forward / 1e9, 1.73, 0.01);
}

TEST(Memory, RecomputeKeepsLess) {
  const StageLayers one_layer{2, 1, false, false};
  const auto bytes = [&](const std::string& more) {
    return activation_bytes(run_spec(qwen_options("--num-layers 4 " + more)), one_layer)
        .from_forward;
  };
  EXPECT_EQ(bytes("--recompute-granularity full"), 2.0 * 4096 * 4096);
  EXPECT_EQ(bytes("--recompute-granularity full --recompute-num-layers 2"), 4096.0 * 4096);
  EXPECT_LT(bytes("--moe-layer-recompute"), bytes("--mlp-recompute"));
  EXPECT_DOUBLE_EQ(bytes("") - bytes("--mlp-recompute"), 2.0 * 4096 * 8 * 2 * 1536);
  // What tests/lean_test.cpp finds that norms leave out.
  const HeldOfChunk kept = activation_bytes(run_spec(deepseek_options("")), one_layer);
  const HeldOfChunk fewer =
      activation_bytes(run_spec(deepseek_options("--mla-fuse-qkv")), one_layer);
  EXPECT_DOUBLE_EQ(kept.from_forward - fewer.from_forward, 2.0 * 4096 * (7168 + 1536 + 512));
}

TEST(Memory, AChunkCountsFromItsForwardThroughItsWeightGradients) {
  const Options options = qwen_options(
      "--num-layers 8 --scheduler dualpipev --virtual-hetero-pipeline-stages 2 1 1 1 0 1 1 1 "
      "--num-micro-batches 16");
  const RunSpec spec = run_spec(options);
  const std::vector<RankMemory> memory = memory_of(spec);
  const HeldOfChunk layer = activation_bytes(spec, {1, 1, false, false});
  // Weight gradients of experts want more than their input gradients did.
  EXPECT_GT(layer.from_input_grads, layer.from_forward);
  // Rank 2: 9 chunk-micro-batches of one layer each, one of them at most behind its input
  // gradients.
  EXPECT_GE(memory[2].activations, 9 * layer.from_forward);
  EXPECT_LE(memory[2].activations, 8 * layer.from_forward + layer.from_input_grads);
  // Rank 0: at most 8 of chunk 0, of two layers each, and what the head keeps of chunk 1.
  EXPECT_GT(memory[0].activations, 16 * layer.from_forward);
}

TEST(Memory, ProductsInEightBitsKeepTheirWeightsTwiceMore) {
  const RunSpec bf16 = run_spec(qwen_options("--num-layers 8"));
  RunSpec fp8 = bf16;
  fp8.fp8 = Fp8Spec{.end_layer = 8};
  double elements = 0;
  for (const TensorInfo& tensor : tensor_inventory(bf16.model)) {
    const bool is_linear = tensor.layer >= 0 && tensor.shape.size() == 2 &&
                           tensor.name.find("mlp.gate.") == std::string::npos;
    if (is_linear) elements += static_cast<double>(tensor.num_elements());
  }
  const auto weights = [](const RunSpec& spec) {
    double sum = 0;
    for (const RankMemory& rank : memory_of(spec)) sum += rank.weights;
    return sum;
  };
  EXPECT_DOUBLE_EQ(weights(fp8) - weights(bf16), elements * 2 * (1 + 4.0 / (128 * 128)));
  EXPECT_LT(memory_of(fp8)[1].activations, memory_of(bf16)[1].activations);
}

TEST(Memory, StatesOnTheHostLeaveTheGpu) {
  RunSpec spec = run_spec(qwen_options("--num-layers 8"));
  const double all = memory_of(spec).front().optimizer;
  EXPECT_EQ(memory_of(spec).front().host, 0);
  spec.optimizer.is_hybrid = true;
  spec.optimizer.host_fraction = 0.25;
  EXPECT_DOUBLE_EQ(memory_of(spec).front().optimizer, 0.75 * all);
  EXPECT_DOUBLE_EQ(memory_of(spec).front().host, 0.25 * all);
  // Pinned, the gradients come to the host while the backward runs.
  spec.optimizer.pin_host_memory = true;
  EXPECT_DOUBLE_EQ(memory_of(spec).front().host, 0.25 * all * 16 / 12);
}

TEST(Memory, TensorParallelRanksKeepWhatTheyGather) {
  const StageLayers one_layer{2, 1, false, false};
  const auto kept = [&](const std::string& more) {
    return activation_bytes(run_spec(qwen_options("--num-layers 4 " + more)), one_layer)
        .from_forward;
  };
  const double whole = kept("");
  const double hidden = 2.0 * 4096 * 4096;  // of all tokens
  // All is halved but the input of attention's product, which is gathered.
  EXPECT_NEAR(kept("--tensor-model-parallel-size 2"), whole / 2 + hidden / 2, 1e-6 * whole);
}

TEST(Memory, TokensOnTheirWayAreCounted) {
  const auto travelling = [](const std::string& more) {
    return memory_of(
               run_spec(qwen_options("--num-layers 4 --pipeline-model-parallel-size 1 " + more)))
        .front()
        .travelling;
  };
  EXPECT_EQ(travelling("--expert-model-parallel-size 1"), 0);
  const double hidden = 2.0 * 4096 * 4096;
  EXPECT_EQ(travelling("--expert-model-parallel-size 4"), 4 * hidden) << "of every rank";
  EXPECT_EQ(travelling("--expert-model-parallel-size 4 --moe-token-dispatcher-type alltoall"),
            8 * hidden)
      << "of every choice";
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
