#include "moetron/run/shrunk_run.h"

#include <gtest/gtest.h>

#include "moetron/base/mistakes.h"
#include "moetron/run/division.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

// DeepSeek-V3 as it is, but for the layout.
std::string deepseek(const std::string& more) {
  return "pretrain --model-family deepseek --num-layers 61 --hidden-size 7168 --ffn-hidden-size "
         "18432 --num-attention-heads 128 --q-lora-rank 1536 --kv-lora-rank 512 --num-experts 256 "
         "--moe-router-topk 8 --moe-ffn-hidden-size 2048 --first-k-dense-replace 3 "
         "--enable-shared-expert --num-shared-experts 1 --moe-router-deepseekv3 "
         "--moe-router-num-groups 8 --moe-router-group-topk 4 --vocab-size 129280 "
         "--seq-length 4096 --micro-batch-size 1 --train-iters 9 --lr 1e-4 --data-path none "
         "--max-position-embeddings 4096 " +
         more;
}

std::string qwen(const std::string& more) {
  return "pretrain --model-family qwen --num-layers 8 --hidden-size 2048 --num-attention-heads 32 "
         "--kv-channels 128 --num-query-groups 4 --qk-layernorm --num-experts 128 "
         "--moe-router-topk 8 --moe-ffn-hidden-size 768 --vocab-size 1000 --seq-length 64 "
         "--micro-batch-size 4 --train-iters 9 --lr 1e-4 --data-path none " +
         more;
}

RunSpec shrunk(const std::string& command_line, int64_t world_size) {
  const RunSpec run = resolve_run(parse(command_line).options, RunFacts{.world_size = world_size});
  RunSpec small = shrink_run(run);
  // Whatever was asked for, the small model can be divided in the same way.
  for (const RunSpec& spec : {small, without_pipeline(small), on_one_rank(small)}) {
    check_division(spec.model, spec.sizes, spec.latent_attention.replicate_down);
    check_schedule(spec.pipeline.request);
    int64_t num_layers = 0;
    for (const StageLayers& stage : spec.pipeline.stages) {
      EXPECT_EQ(stage.first, num_layers);
      num_layers += stage.count;
    }
    EXPECT_EQ(num_layers, spec.model.num_layers);
    EXPECT_EQ(spec.batch.global_batch_size,
              spec.batch.micro_batch_size * spec.batch.num_micro_batches * spec.sizes.dp);
    EXPECT_EQ(spec.batch.global_batch_size, small.batch.global_batch_size);
  }
  return small;
}

TEST(ShrunkRun, KeepsWhatTheLayoutDivides) {
  const RunSpec run = shrunk(
      deepseek("--tensor-model-parallel-size 2 --expert-model-parallel-size 4 "
               "--pipeline-model-parallel-size 8 --scheduler dualpipev --global-batch-size 960 "
               "--use-distributed-optimizer --moe-layer-recompute"),
      64);
  EXPECT_EQ(run.sizes.world, 64);
  EXPECT_EQ(describe_axes(run.sizes), "tp 2, ep 4, pp 8, dp 4");
  EXPECT_EQ(run.pipeline.request.kind, ScheduleKind::kDualPipeV);
  EXPECT_EQ(run.batch.num_micro_batches, 16);
  EXPECT_EQ(run.model.num_layers, 16);  // one a stage; the first stage has the dense ones
  EXPECT_FALSE(run.model.is_moe_layer(0));
  EXPECT_TRUE(run.model.is_moe_layer(1));
  EXPECT_EQ(run.model.num_moe_layers(), 15);
  EXPECT_EQ(run.model.moe->num_experts, 16);
  EXPECT_EQ(run.model.moe->num_groups, 8);
  EXPECT_EQ(run.model.moe->top_k, 4);
  EXPECT_EQ(run.model.num_attention_heads, 4);
  EXPECT_TRUE(run.optimizer.distributed);
  EXPECT_EQ(run.recompute.kind, Recompute::kMoeLayer);
  EXPECT_LT(run.model.hidden_size, 100);

  const RunSpec plain = without_pipeline(run), one = on_one_rank(run);
  EXPECT_EQ(describe_axes(plain.sizes), "tp 2, ep 4, dp 4");
  EXPECT_FALSE(plain.optimizer.distributed);
  EXPECT_EQ(plain.recompute.kind, Recompute::kNothing);
  EXPECT_EQ(describe_axes(one.sizes), "one rank");
  EXPECT_EQ(one.batch.num_micro_batches, 64);
}

TEST(ShrunkRun, LeavesOutCopiesFirstAndThenStages) {
  const std::string batch = "--global-batch-size 3840 ";
  const auto axes = [&](const std::string& options, int64_t world_size) {
    const RunSpec run = shrunk(deepseek(batch + options), world_size);
    EXPECT_LE(run.sizes.world, kMostCheckedRanks);
    return concat(describe_axes(run.sizes), " on ", run.sizes.world);
  };
  const std::string pipeline = "--pipeline-model-parallel-size 8 ";
  EXPECT_EQ(axes(pipeline + "--expert-model-parallel-size 4", 1024), "ep 4, pp 8, dp 8 on 64");
  EXPECT_EQ(axes(pipeline + "--expert-model-parallel-size 32", 256), "ep 32, pp 2, dp 32 on 64");
  EXPECT_EQ(axes("--expert-model-parallel-size 64 --pipeline-model-parallel-size 16", 1024),
            "ep 32, pp 2, dp 32 on 64");
  EXPECT_EQ(axes("--tensor-model-parallel-size 8 --expert-model-parallel-size 128", 128),
            "tp 8, ep 64, dp 8 on 64");
  EXPECT_EQ(axes("", 192), "dp 64 on 64");
  EXPECT_EQ(axes("", 320), "dp 64 on 64");
}

TEST(ShrunkRun, KeepsCopiesOfKeyValueHeads) {
  const RunSpec copies = shrunk(qwen("--tensor-model-parallel-size 8 --global-batch-size 8"), 8);
  EXPECT_EQ(copies.model.num_key_value_heads, 4);
  EXPECT_EQ(copies.model.num_attention_heads, 16);
  EXPECT_EQ(copies.batch.micro_batch_size, 2);
  const RunSpec divided = shrunk(qwen("--tensor-model-parallel-size 2 --global-batch-size 8"), 2);
  EXPECT_EQ(divided.model.num_key_value_heads, 4);
  EXPECT_EQ(divided.model.num_attention_heads, 8);
}

TEST(ShrunkRun, KeepsStagesOfEverySchedule) {
  const auto stages = [&](const std::string& more) {
    const RunSpec run =
        shrunk(qwen("--pipeline-model-parallel-size 2 --global-batch-size 240 " + more), 2);
    std::vector<int64_t> counts;
    for (const StageLayers& stage : run.pipeline.stages) counts.push_back(stage.count);
    EXPECT_TRUE(run.pipeline.stages.front().has_embedding);
    EXPECT_TRUE(run.pipeline.stages.back().has_head);
    return counts;
  };
  using Counts = std::vector<int64_t>;
  EXPECT_EQ(stages(""), (Counts{1, 1}));
  EXPECT_EQ(stages("--hetero-pipeline-stages 0 8"), (Counts{0, 1}));
  EXPECT_EQ(stages("--virtual-hetero-pipeline-stages 3 3 2 0 --scheduler dualpipev"),
            (Counts{1, 1, 0, 1}));
  EXPECT_EQ(stages("--num-virtual-stages-per-pipeline-rank 4"), (Counts(8, 1)));
  EXPECT_EQ(stages("--recompute-granularity full --recompute-num-layers 4"), (Counts{2, 2}));
  for (const NamedSchedule& schedule : kSchedules) {
    if (schedule.kind == ScheduleKind::kInterleaved) continue;  // 1f1b with virtual stages
    EXPECT_FALSE(stages(concat("--scheduler ", schedule.name)).empty());
  }
}

TEST(ShrunkRun, LeavesOutProductsInEightBits) {
  const RunSpec run = shrunk(qwen("--global-batch-size 4 --fp8-format e4m3"), 1);
  EXPECT_FALSE(run.fp8);
  EXPECT_EQ(run.dtype, Dtype::kFp32);
}

}  // namespace
}  // namespace moetron
