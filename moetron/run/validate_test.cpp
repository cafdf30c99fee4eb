#include <gtest/gtest.h>

#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

TEST(Validate, NamesBothOptionsAndBothValues) {
  EXPECT_EQ(invalid(pretrain(), 4), "");
  EXPECT_EQ(invalid(pretrain(), 3),
            "global-batch-size (8) must be a multiple of micro-batch-size (2) times the "
            "data-parallel ranks (3)");
  EXPECT_EQ(invalid(pretrain("--min-lr 1")), "min-lr (1) must be at most lr (0.001)");
  EXPECT_EQ(invalid(pretrain("--lr-warmup-iters 11")),
            "lr-warmup-iters (11) must be smaller than train-iters (10)");
  EXPECT_EQ(invalid(pretrain("--lr-warmup-iters 10")),
            "lr-warmup-iters (10) must be smaller than train-iters (10)");
  EXPECT_EQ(invalid(pretrain("--lr-warmup-iters 9")), "");
  EXPECT_EQ(invalid(pretrain("--lr-decay-iters 5 --lr-warmup-iters 6")),
            "lr-warmup-iters (6) must be smaller than lr-decay-iters (5)");
  EXPECT_EQ(invalid(pretrain("--num-attention-heads 6 --num-query-groups 4")),
            "num-attention-heads (6) must be a multiple of num-query-groups (4)");
  EXPECT_EQ(invalid(pretrain("--num-experts 4 --moe-router-topk 8")),
            "moe-router-topk (8) must be at most num-experts (4)");
  EXPECT_EQ(invalid(pretrain("--max-position-embeddings 32")),
            "seq-length (64) must be at most max-position-embeddings (32)");
  EXPECT_EQ(invalid(pretrain("--group-query-attention")),
            "group-query-attention needs num-query-groups");
  EXPECT_EQ(invalid(pretrain("--split 0,1,0")), "split (0, ...) leaves nothing to train on");
  EXPECT_EQ(invalid(pretrain("--split 0,0,0")), "split must have a share above 0");
  EXPECT_EQ(invalid(pretrain("--split 1,1,1,1")), "split takes at most 3 shares, not 4");
  EXPECT_EQ(invalid("pretrain --model-family qwen --seq-length 1 --micro-batch-size 1 --lr 1 "
                    "--global-batch-size 1 --train-iters 1 --data-path a"),
            "pretrain needs vocab-size, tokenizer-model, or load with a config.json");
  EXPECT_THROW(validate(Options{}, Command::kPretrain, 1), ConfigError);
}

TEST(Validate, TheAxesMustMultiplyOut) {
  EXPECT_EQ(invalid(pretrain("--tensor-model-parallel-size 2"), 8), "");
  EXPECT_EQ(invalid(pretrain("--tensor-model-parallel-size 3"), 8),
            "the number of ranks (8) must be a multiple of tensor-model-parallel-size (3) times "
            "pipeline-model-parallel-size (1)");
  EXPECT_EQ(invalid(pretrain("--expert-model-parallel-size 3 --expert-tensor-parallel-size 2"), 8),
            "the number of ranks (8) must be a multiple of expert-model-parallel-size (3) times "
            "tensor-model-parallel-for-expert (2) times pipeline-model-parallel-size (1)");
  EXPECT_EQ(invalid(pretrain("--expert-model-parallel-size 2147483647 "
                             "--expert-tensor-parallel-size 2147483647"),
                    4),
            "the number of ranks (4) must be a multiple of expert-model-parallel-size "
            "(2147483647) times tensor-model-parallel-for-expert (2147483647) times "
            "pipeline-model-parallel-size (1)");
  EXPECT_EQ(invalid(pretrain("--expert-model-parallel-size 4 --expert-tensor-parallel-size 2 "
                             "--tensor-model-parallel-size 2 --num-experts 8"),
                    8),
            "")
      << "folded over the same ranks";
  EXPECT_EQ(invalid(pretrain("--expert-model-parallel-size 4 --num-experts 6"), 4),
            "num-experts (6) must be a multiple of expert-model-parallel-size (4)");
  EXPECT_EQ(invalid(pretrain("--expert-tensor-parallel-size 4 --moe-ffn-hidden-size 30"), 4),
            "moe-ffn-hidden-size (30) must be a multiple of tensor-model-parallel-for-expert (4)");
}

TEST(Validate, TensorRanksMustDivideTheWidths) {
  const auto at_4 = [](const std::string& more) {
    return invalid(pretrain("--tensor-model-parallel-size 4 " + more), 4);
  };
  EXPECT_EQ(at_4("--num-attention-heads 6"),
            "num-attention-heads (6) must be a multiple of tensor-model-parallel-size (4)");
  EXPECT_EQ(at_4("--num-attention-heads 12 --num-query-groups 3"),
            "num-query-groups (3) must be a multiple of tensor-model-parallel-size (4), or divide "
            "it");
  EXPECT_EQ(at_4("--num-attention-heads 12 --num-query-groups 2"), "") << "held by two ranks each";
  EXPECT_EQ(at_4("--ffn-hidden-size 98"),
            "ffn-hidden-size (98) must be a multiple of tensor-model-parallel-size (4)");
  EXPECT_EQ(at_4("--enable-shared-expert --moe-ffn-hidden-size 30"),
            "num-shared-experts (1) times moe-ffn-hidden-size (30) must be a multiple of "
            "tensor-model-parallel-size (4)");
  EXPECT_EQ(at_4("--num-shared-experts 2 --moe-ffn-hidden-size 30"), "");
  EXPECT_EQ(at_4("--vocab-size 257"), "") << "the vocabulary is padded";
}

TEST(Validate, LatentAttentionIsDividedUnlessReplicated) {
  const auto at_4 = [](const std::string& more) {
    return invalid(pretrain("--model-family deepseek --tensor-model-parallel-size 4 " + more), 4);
  };
  EXPECT_EQ(at_4("--kv-lora-rank 16 --q-lora-rank 26"),
            "q-lora-rank (26) must be a multiple of tensor-model-parallel-size (4)");
  EXPECT_EQ(at_4("--kv-lora-rank 16 --qk-rope-head-dim 6"),
            "kv-lora-rank (16) plus qk-rope-head-dim (6) must be a multiple of "
            "tensor-model-parallel-size (4) without mla-replicate-l1");
  EXPECT_EQ(at_4("--kv-lora-rank 16 --qk-rope-head-dim 6 --q-lora-rank 26 --mla-replicate-l1"), "");
  EXPECT_EQ(at_4("--kv-lora-rank 16 --mla-fuse-qkv"),
            "mla-fuse-qkv (true) needs q-lora-rank, which is not given");
  EXPECT_EQ(at_4("--kv-lora-rank 16 --q-lora-rank 24 --mla-fuse-qkv"), "");
}

TEST(Validate, OptionsThatNeedOthers) {
  EXPECT_EQ(invalid(pretrain("--tensor-model-parallel-size 2 --sequence-parallel false"), 2),
            "sequence-parallel (false) contradicts tensor-model-parallel-size (2): several "
            "tensor-parallel ranks always divide the sequence");
  EXPECT_EQ(invalid(pretrain("--sequence-parallel false")), "");
  EXPECT_EQ(invalid(pretrain("--tensor-model-parallel-size 2 --sequence-parallel"), 2), "");
  EXPECT_EQ(invalid(pretrain("--overlap-param-gather --overlap-grad-reduce")),
            "overlap-param-gather (true) needs use-distributed-optimizer (false) and "
            "overlap-grad-reduce (true) to be true");
  EXPECT_EQ(invalid(pretrain("--overlap-param-gather --overlap-grad-reduce "
                             "--use-distributed-optimizer")),
            "");
  EXPECT_EQ(invalid(pretrain("--moe-pad-expert-input-to-capacity")),
            "moe-pad-expert-input-to-capacity (true) needs a capacity: "
            "moe-expert-capacity-factor or force-drop-and-padding");
  EXPECT_EQ(invalid(pretrain("--moe-pad-expert-input-to-capacity --moe-expert-capacity-factor 2")),
            "");
  EXPECT_EQ(invalid(pretrain("--distributed-backend nccl --device cpu")),
            "distributed-backend (nccl) needs device (cpu) to be cuda");
  EXPECT_EQ(invalid(pretrain("--dry-run --check-layout")),
            "dry-run (true) and check-layout (true) each take the place of the run: give one");
}

TEST(Validate, TellsTheCapacity) {
  EXPECT_EQ(error_of(pretrain("--moe-expert-capacity-factor 0")),
            "--moe-expert-capacity-factor must be above 0, not 0");
}

TEST(Validate, SimulateNeedsItsSizes) {
  EXPECT_EQ(invalid("simulate --num-micro-batches 8"), "");
  EXPECT_EQ(invalid("simulate"), "simulate needs num-micro-batches");
  const std::string model =
      "simulate --cost model --num-layers 2 --hidden-size 8 --ffn-hidden-size 8 "
      "--num-attention-heads 2 --vocab-size 16 ";
  const std::string sizes = "--seq-length 64 --micro-batch-size 1 ";
  EXPECT_EQ(invalid(model),
            "simulate with cost model needs world-size\n"
            "simulate with cost model needs seq-length and micro-batch-size\n"
            "simulate with cost model needs global-batch-size or num-micro-batches");
  EXPECT_EQ(invalid(model + sizes + "--hardware a --world-size 4"),
            "simulate with cost model needs global-batch-size or num-micro-batches");
  EXPECT_EQ(invalid(model + sizes + "--hardware a --world-size 4 --global-batch-size 8"), "");
  EXPECT_EQ(invalid(model + "--hardware a --world-size 4 --global-batch-size 8"),
            "simulate with cost model needs seq-length and micro-batch-size");
  EXPECT_EQ(invalid(model + sizes +
                    "--hardware a --world-size 4 --num-micro-batches 8 "
                    "--tensor-model-parallel-size 8"),
            "the number of ranks (4) must be a multiple of tensor-model-parallel-size (8) times "
            "pipeline-model-parallel-size (1)\n"
            "num-attention-heads (2) must be a multiple of tensor-model-parallel-size (8)");
}

TEST(Validate, OtherCommandsNeedTheirInputs) {
  EXPECT_EQ(invalid("generate --load run --prompt x"), "");
  EXPECT_EQ(invalid("generate --prompt x"), "generate needs load");
  EXPECT_EQ(invalid("generate --load run"),
            "generate needs one of prompt, prompt-file and messages");
  EXPECT_EQ(invalid("preprocess --input a --output-prefix b"),
            "preprocess needs tokenizer-model, or tokenizer bytes");
  EXPECT_EQ(invalid("preprocess --input a --output-prefix b --tokenizer bytes"), "");
  EXPECT_EQ(invalid("preprocess --input a --output-prefix b --from alpaca"), "")
      << "conversations stay text";
  EXPECT_EQ(invalid("compare-loss a b"), "");
  EXPECT_EQ(invalid("compare-loss a b c"), "compare-loss compares 2 runs, not 3");
}

}  // namespace
}  // namespace moetron
