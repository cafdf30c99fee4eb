// The argument lists of the two training scripts of the guide (tests/guide/), as their shells pass
// them: 1e9 tokens in batches of 4096 x 4096 are 59 steps, the warm-up rounds to 0.
// tests/example_scripts_test.py trains by them.
#include <algorithm>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"
#include "moetron/base/file.h"
#include "moetron/run/config_from_options.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The environment a script is started with.
struct Shell {
  int ep = 1;
  int pp = 1;
  std::string dispatcher = "allgather_fused";
  std::string optional = "";  // what USE_FLASH3, GROUP_GEMM, VPP, SCHED, HPP, RECOMPUTE, ... add
  std::string paths = "";     // LOAD_PATH and SAVE_PATH
};

std::string with_values(std::string text, const std::string& name, const std::string& value) {
  const std::string place = "${" + name + "}";
  return text.replace(text.find(place), place.size(), value);
}

// Of `list`, a file of tests/guide/.
std::string script(const std::string& family, const std::string& list, const Shell& shell) {
  std::string text = "pretrain --model-family " + family + " " + read_file("tests/guide/" + list);
  text = with_values(text, "EP", std::to_string(shell.ep));
  text = with_values(text, "PP", std::to_string(shell.pp));
  text = with_values(text, "TD", shell.dispatcher);
  text = with_values(text, "OPTIONAL", shell.optional);
  return with_values(text, "PATHS", shell.paths);
}

std::string deepseek_script(const Shell& shell) {
  return script("deepseek", "pretrain_deepseek.txt", shell);
}

std::string qwen_script(const Shell& shell) {
  return script("qwen", "pretrain_qwen_moe.txt", shell);
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
  EXPECT_EQ(parsed.options.moe.moe_grouped_gemm, true);
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
  EXPECT_FALSE(qwen.moe.moe_grouped_gemm.has_value());
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
