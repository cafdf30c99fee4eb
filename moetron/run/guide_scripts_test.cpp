// The argument lists of the two training scripts of the guide, as their shells pass them.
#include <algorithm>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"
#include "moetron/run/config_from_options.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const char* const kDeepseekFixed =
    "--mla-replicate-l1 --no-bias-swiglu-fusion "
    "--num-experts 256 --moe-router-topk 8 --moe-ffn-hidden-size 2048 --enable-shared-expert "
    "--num-shared-experts 1 --first-k-dense-replace 3 --moe-router-deepseekv3 "
    "--moe-router-score-function sigmoid --moe-router-enable-expert-bias True "
    "--moe-router-topk-scaling-factor 2.5 --moe-router-bias-update-rate 1e-3 "
    "--moe-aux-loss-coeff 1e-4 "
    "--q-lora-rank 1536 --kv-lora-rank 512 --qk-nope-head-dim 128 --qk-rope-head-dim 64 "
    "--v-head-dim 128 --kv-channels 128 --qk-layernorm "
    "--use-mcore-models --disable-bias-linear --patch-tokenizer-type DeepSeekTokenizer "
    "--tokenizer-model /workspace/DeepSeek-V3 --extra-vocab-size 467 --max-padding-length 4096 "
    "--swiglu --normalization RMSNorm --norm-epsilon 1e-6 --use-rotary-position-embeddings "
    "--no-rope-fusion --position-embedding-type rope --untie-embeddings-and-output-weights "
    "--rotary-base 10000 --rotary-scaling-factor 40 --rotary-seq-len-interpolation-factor 1 "
    "--rotary-mscale 1.0 --rotary-mscale-all-dim 1.0 --original-max-position-embeddings 4096 "
    "--rotary-beta-fast 32 --rotary-beta-slow 1 "
    "--num-layers 61 --hidden-size 7168 --num-attention-heads 128 --ffn-hidden-size 18432 "
    "--max-position-embeddings 163840 --seq-length 4096 ";

const char* const kQwenFixed =
    "--use-local-multi-tensor-scale "
    "--num-experts 128 --moe-router-topk 8 --moe-ffn-hidden-size 1536 "
    "--moe-router-topk-scaling-factor 2.5 --moe-aux-loss-coeff 1e-4 --moe-router-pre-softmax "
    "--cross-entropy-loss-fusion "
    "--group-query-attention --num-query-groups 4 --num-attention-heads 64 --add-qkv-bias "
    "--use-mcore-models --disable-bias-linear --patch-tokenizer-type Qwen3Tokenizer "
    "--tokenizer-model /workspace/Qwen3-30B-A3B --extra-vocab-size 421 --swiglu "
    "--normalization RMSNorm --norm-epsilon 1e-5 --use-rotary-position-embeddings "
    "--position-embedding-type rope --rotary-percent 1.0 --rotary-base 1000000 "
    "--rotary-emb-use-cache --max-position-embeddings 131072 "
    "--untie-embeddings-and-output-weights "
    "--num-layers 94 --hidden-size 4096 --seq-length 4096 ";

// Shared by both: 1e9 tokens in batches of 4096 x 4096 are 59 steps, the warm-up rounds to 0.
const char* const kTraining =
    "--micro-batch-size 1 --global-batch-size 4096 --train-iters 59 --eval-interval 10000 "
    "--eval-iters 0 --lr 5e-6 --min-lr 1e-6 --lr-decay-style cosine --lr-decay-iters 59 "
    "--lr-warmup-iters 0 --attention-dropout 0.0 --hidden-dropout 0.0 --weight-decay 0.1 "
    "--adam-beta1 0.9 --adam-beta2 0.95 --clip-grad 1.0 --init-method-std 0.008 --seed 1234 ";
const char* const kLogging =
    "--log-interval 1 --log-throughput --save-interval 500 --timing-log-level 2 "
    "--save-interval 10000 --eval-interval 1000 --eval-iters -1 --num-workers 8 ";

// The environment a script is started with.
struct Shell {
  int ep = 1;
  int pp = 1;
  std::string dispatcher = "allgather_fused";
  std::string optional = "";  // what USE_FLASH3, GROUP_GEMM, VPP, SCHED, HPP, RECOMPUTE, ... add
  std::string paths = "";     // LOAD_PATH and SAVE_PATH
};

std::string parallel_args(const Shell& shell) {
  return "--bf16 --use-distributed-optimizer --sequence-parallel "
         "--transformer-impl transformer_engine --use-flash-attn "
         "--tensor-model-parallel-size 1 --tensor-model-parallel-for-expert 1 "
         "--expert-model-parallel-size " +
         std::to_string(shell.ep) + " --pipeline-model-parallel-size " + std::to_string(shell.pp) +
         " --moe-token-dispatcher-type-patch " + shell.dispatcher + " " + shell.optional +
         " --no-async-tensor-model-parallel-allreduce ";
}

std::string deepseek_script(const Shell& shell) {
  return "pretrain --model-family deepseek " + parallel_args(shell) + kDeepseekFixed + kTraining +
         "--no-load-optim --no-load-rng --num-workers 8 --no-save-optim " + shell.paths + kLogging +
         "--data-path /workspace/datasets/DeepSeek-V3/deepseekv3_text_document --split 99,1,0 "
         "--dataset LLama-Pretrain-Idxmap";
}

std::string qwen_script(const Shell& shell) {
  return "pretrain --model-family qwen " + parallel_args(shell) + kQwenFixed + kTraining +
         "--no-load-optim --no-load-rng --no-save-optim --no-save-rng " + shell.paths + kLogging +
         "--data-path /workspace/datasets/Qwen3-30B-A3B/qwen3_text_document --split 99,1,0 "
         "--dataset LLama-Pretrain-Idxmap";
}

bool has_notice(const ParsedCommandLine& parsed, const std::string& option) {
  // A notice may name several options, each followed by a blank, a comma or a colon.
  return std::any_of(parsed.notices.begin(), parsed.notices.end(), [&](const std::string& line) {
    const size_t at = line.find(option);
    return at != std::string::npos &&
           std::string(" ,:").find(line[at + option.size()]) != std::string::npos;
  });
}

TEST(GuideScripts, DeepseekIsAcceptedOnOneRank) {
  const ParsedCommandLine parsed = parse(deepseek_script({}));
  const Options& options = parsed.options;
  EXPECT_NO_THROW(validate(options, Command::kPretrain, 1));
  EXPECT_EQ(options.model.model_family, ModelFamily::kDeepseek);
  EXPECT_EQ(options.model.num_layers, 61);
  EXPECT_EQ(options.model.q_lora_rank, 1536);
  EXPECT_EQ(options.model.rotary_scaling_factor, 40);
  EXPECT_EQ(options.model.qk_layernorm, true);
  EXPECT_EQ(options.model.add_qkv_bias, std::nullopt);
  EXPECT_EQ(options.moe.moe_router_enable_expert_bias, true);
  EXPECT_EQ(options.moe.moe_router_score_function, RouterScoreFunction::kSigmoid);
  EXPECT_EQ(options.moe.moe_router_topk_scaling_factor, 2.5);
  EXPECT_EQ(options.moe.moe_aux_loss_coeff, 1e-4);
  EXPECT_EQ(options.tokenizer.patch_tokenizer_type, PatchTokenizer::kDeepseek);
  EXPECT_EQ(options.training.dtype, Dtype::kBf16);
  EXPECT_EQ(options.training.eval_iters, -1) << "the last of a repeated option wins";
  EXPECT_EQ(options.training.eval_interval, 1000);
  EXPECT_EQ(options.optimizer.lr_decay_style, LrDecayStyle::kCosine);
  EXPECT_EQ(options.optimizer.lr_warmup_iters, 0);
  EXPECT_EQ(options.data.split, (std::vector<double>{99, 1, 0}));
  EXPECT_TRUE(has_notice(parsed, "--mla-replicate-l1"));
  EXPECT_TRUE(has_notice(parsed, "--moe-token-dispatcher-type-patch"));
  EXPECT_TRUE(has_notice(parsed, "--save-interval")) << "there is no --save";
  EXPECT_FALSE(has_notice(parsed, "--moe-router-topk-scaling-factor"));
}

TEST(GuideScripts, QwenIsAcceptedOnOneRank) {
  const ParsedCommandLine parsed =
      parse(qwen_script({.paths = "--load /models/qwen --save /runs/qwen "}));
  const Options& options = parsed.options;
  EXPECT_NO_THROW(validate(options, Command::kPretrain, 1));
  EXPECT_EQ(options.model.model_family, ModelFamily::kQwen);
  EXPECT_EQ(options.model.num_query_groups, 4);
  EXPECT_EQ(options.model.kv_channels, std::nullopt);
  EXPECT_EQ(options.moe.moe_router_pre_softmax, true);
  EXPECT_EQ(options.checkpoint.load, "/models/qwen");
  EXPECT_EQ(options.checkpoint.save_interval, 10000);
  EXPECT_TRUE(has_notice(parsed, "--no-save-rng"));
  // The family does not scale: the option is dropped with a line.
  EXPECT_EQ(options.moe.moe_router_topk_scaling_factor, std::nullopt);
  EXPECT_TRUE(has_notice(parsed, "--moe-router-topk-scaling-factor"));
  EXPECT_TRUE(has_notice(parsed, "--cross-entropy-loss-fusion"));
}

// The scripts without a pipeline, in the layouts of the guide.
TEST(GuideScripts, EveryExpertLayoutIsAccepted) {
  const Shell fast{.ep = 16,
                   .dispatcher = "overlap_deepep",
                   .optional =
                       "--moe-grouped-gemm --overlap-grad-reduce --mlp-recompute "
                       "--recompute-method uniform --recompute-num-layers 1 "
                       "--recompute-granularity full "};
  const ParsedCommandLine parsed = parse(deepseek_script(fast));
  EXPECT_NO_THROW(validate(parsed.options, Command::kPretrain, 64));
  EXPECT_EQ(parsed.options.parallel.expert_model_parallel_size, 16);
  EXPECT_EQ(parsed.options.moe.moe_token_dispatcher_type, TokenDispatcher::kOverlapDeepep);
  EXPECT_TRUE(parsed.options.moe.moe_grouped_gemm);
  EXPECT_TRUE(parsed.options.optimizer.use_distributed_optimizer);
  EXPECT_TRUE(parsed.options.optimizer.overlap_grad_reduce);
  EXPECT_EQ(parsed.options.memory.recompute_granularity, RecomputeGranularity::kFull);
  EXPECT_TRUE(has_notice(parsed, "--mlp-recompute")) << "RECOMPUTE beats MLP_RECOMPUTE";
  const Shell baseline{.ep = 8, .optional = "--force-drop-and-padding --moe-layer-recompute "};
  Options qwen = parse(qwen_script(baseline)).options;
  EXPECT_NO_THROW(validate(qwen, Command::kPretrain, 64));
  qwen.model.vocab_size = 152064;
  const ModelConfig model = model_config_from_options(qwen);
  EXPECT_TRUE(model.attention_bias && !model.qk_norm && model.moe);
  EXPECT_EQ(model.head_dim, 64) << "without kv-channels";
  EXPECT_TRUE(qwen.moe.force_drop_and_padding);
  EXPECT_TRUE(qwen.memory.moe_layer_recompute);
  EXPECT_FALSE(qwen.moe.moe_grouped_gemm);
  EXPECT_EQ(qwen.moe.moe_token_dispatcher_type, TokenDispatcher::kAllGatherFused);
}

TEST(GuideScripts, EveryPipelineIsAccepted) {
  const Shell dualpipe{.ep = 16,
                       .pp = 2,
                       .dispatcher = "overlap_deepep",
                       .optional =
                           "--module-impl {\"core_attn\":\"local\"} --moe-grouped-gemm-te "
                           "--scheduler dualpipev "
                           "--virtual-hetero-pipeline-stages 2 2 1 2 --mlp-recompute "
                           "--overlap-grad-reduce",
                       .paths = "--num-layers 7 "};
  const Options options = parse(deepseek_script(dualpipe)).options;
  EXPECT_NO_THROW(validate(options, Command::kPretrain, 64));
  EXPECT_EQ(options.parallel.scheduler, ScheduleKind::kDualPipeV);
  EXPECT_THAT(options.parallel.virtual_hetero_pipeline_stages, ElementsAre(2, 2, 1, 2));
  const Shell baseline{.ep = 8,
                       .pp = 4,
                       .optional =
                           "--moe-grouped-gemm --force-drop-and-padding "
                           "--hetero-pipeline-stages 7 8 8 7 "
                           "--recompute-method uniform --recompute-num-layers 1 "
                           "--recompute-granularity full "
                           "--optimizer hybridadam --optimizer-offload-policy static "
                           "--optimizer-offload-fraction 1 --optimizer-enable-pin",
                       .paths = "--num-layers 30 "};
  const Options offloaded = parse(qwen_script(baseline)).options;
  EXPECT_NO_THROW(validate(offloaded, Command::kPretrain, 64));
  EXPECT_EQ(offloaded.optimizer.optimizer, OptimizerKind::kHybridAdam);
  EXPECT_EQ(offloaded.optimizer.optimizer_offload_fraction, 1);
  EXPECT_TRUE(offloaded.optimizer.optimizer_enable_pin);
  const Shell interleaved{.ep = 8,
                          .pp = 4,
                          .optional = "--num-layers-per-virtual-pipeline-stage 4",
                          .paths = "--num-layers 32 "};
  EXPECT_NO_THROW(validate(parse(qwen_script(interleaved)).options, Command::kPretrain, 64));
}

TEST(GuideScripts, AShellMayHaveTakenTheQuotes) {
  EXPECT_TRUE(has_notice(parse(pretrain("--module-impl {core_attn:local}")), "--module-impl"));
  EXPECT_THAT(error_of(pretrain("--module-impl core_attn")), HasSubstr("{module:implementation"));
  EXPECT_THAT(error_of(pretrain("--module-impl {core_attn:}")), HasSubstr("--module-impl"));
}

}  // namespace
}  // namespace moetron
