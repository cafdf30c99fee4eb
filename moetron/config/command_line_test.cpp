#include "moetron/config/command_line.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/config/applied_settings.h"
#include "moetron/config/test_args.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(CommandLine, ReadsEveryKindOfValue) {
  const Options options =
      parse(pretrain("--lr=2e-3 --data-path 0.3 a 0.7 b --split 99,1,0 --qk-layernorm "
                     "--eod-mask-loss True --fp32 --comm-backend gloo "
                     "--comm-timeout 30 --eval-iters -1 --deterministic-mode"))
          .options;
  EXPECT_EQ(options.optimizer.lr, 2e-3);
  EXPECT_THAT(options.data.data_path, ElementsAre("0.3", "a", "0.7", "b"));
  EXPECT_THAT(options.data.split, ElementsAre(99, 1, 0));
  EXPECT_EQ(options.model.qk_layernorm, true);
  EXPECT_TRUE(options.data.eod_mask_loss);
  EXPECT_EQ(options.training.dtype, Dtype::kFp32);
  EXPECT_EQ(options.runtime.comm_timeout, 30);
  EXPECT_EQ(options.training.eval_iters, -1);
  EXPECT_TRUE(options.runtime.deterministic);
  EXPECT_EQ(options.model.num_layers, std::nullopt) << "not given";
  EXPECT_EQ(options.runtime.seed, 1234);
}

TEST(CommandLine, LaunchPassesOnTheCommandThatRanksRun) {
  const ParsedCommandLine parsed = parse(
      "launch -n 4 --nnodes=2 --node_rank 1 --master-addr gpu7 pretrain -n 5 --help --nnodes 3");
  EXPECT_EQ(parsed.command, Command::kLaunch);
  EXPECT_EQ(parsed.options.launch.nproc_per_node, 4);
  EXPECT_EQ(parsed.options.launch.nnodes, 2);
  EXPECT_EQ(parsed.options.launch.node_rank, 1);
  EXPECT_EQ(parsed.options.launch.master_addr, "gpu7");
  EXPECT_FALSE(parsed.help);
  EXPECT_THAT(parsed.launched, ElementsAre("pretrain", "-n", "5", "--help", "--nnodes", "3"));
  EXPECT_TRUE(parse("launch -h pretrain").help);
  EXPECT_TRUE(parse("launch").launched.empty());
  EXPECT_EQ(error_of("launch -x pretrain"), "unexpected argument \"-x\"");
  EXPECT_EQ(error_of(pretrain("--nnodes 2")), "--nnodes belongs to launch, not to pretrain");
}

// What a plan writes is a run's: the table knows what that still needs, and what stands in for it.
TEST(CommandLine, APlanKnowsWhatARunStillNeeds) {
  const std::string sizes = "plan --seq-length 8 --micro-batch-size 1 --global-batch-size 8 ";
  EXPECT_EQ(missing_options(Command::kPretrain, parse(sizes).given),
            "pretrain needs --train-iters or --train-samples, --lr, --data-path or --mock-data");
  EXPECT_EQ(missing_options(Command::kPretrain,
                            parse(sizes + "--train-samples 80 --mock-data --lr 1e-3").given),
            "");
}

TEST(CommandLine, ACalibrationMeasuresAMachineAndNoRun) {
  const Options options =
      parse("plan --calibrate --name mine --device cpu --num-threads 1 --hardware base.toml")
          .options;
  EXPECT_TRUE(options.plan.calibrate);
  EXPECT_EQ(options.plan.name, "mine");
  EXPECT_EQ(error_of("plan --calibrate --world-size 8 --lr 1e-3"),
            "plan --calibrate measures a machine, not a run: leave out --lr, --world-size");
  EXPECT_EQ(error_of("plan --out a.toml --seq-length 8 --micro-batch-size 1 --global-batch-size 8"),
            "--out belongs to plan --calibrate: add --calibrate, or leave it out");
  EXPECT_EQ(error_of("plan --calibrate --calibrate-seconds 0"),
            "--calibrate-seconds must be above 0, not 0");
}

TEST(CommandLine, TheLastOfARepeatedOptionWins) {
  const Options options =
      parse(pretrain("--seed 1 --bf16 --data-path a --seed 2 --fp32 --data-path b "
                     "--scheduler dualpipev --scheduler 1f1b --qk-layernorm --no-qk-layernorm"))
          .options;
  EXPECT_EQ(options.runtime.seed, 2);
  EXPECT_EQ(options.training.dtype, Dtype::kFp32);
  EXPECT_THAT(options.data.data_path, ElementsAre("b"));
  EXPECT_EQ(options.model.qk_layernorm, false);
}

TEST(CommandLine, OtherCommandsReadTheirOwnOptions) {
  const Options preprocess =
      parse(
          "preprocess --input a.txt b.jsonl --output-prefix out --json-keys text title "
          "--tokenizer bytes --append-eod --workers 3")
          .options;
  EXPECT_THAT(preprocess.preprocess.input, ElementsAre("a.txt", "b.jsonl"));
  EXPECT_THAT(preprocess.preprocess.json_keys, ElementsAre("text", "title"));
  EXPECT_TRUE(preprocess.preprocess.append_eod);
  const Options generate =
      parse_words({"generate", "--load", "run", "--prompt", "Once upon a time", "--top-p", "0.9"})
          .options;
  EXPECT_EQ(generate.generate.prompt, "Once upon a time");
  EXPECT_EQ(generate.generate.top_p, 0.9);
  EXPECT_EQ(error_of(pretrain("--prompt x")), "--prompt belongs to generate, not to pretrain");
}

TEST(CommandLine, SimulateNeedsOfAModelWhatItsCostsNeed) {
  const ParsedCommandLine unit = parse(
      "simulate --scheduler zb-h1 --pipeline-model-parallel-size 4 --num-micro-batches 12 "
      "--cost unit --json --world-size 8");
  EXPECT_EQ(unit.command, Command::kSimulate);
  EXPECT_EQ(unit.options.simulate.num_micro_batches, 12);
  EXPECT_TRUE(unit.options.report.json);
  EXPECT_THAT(
      unit.notices,
      ElementsAre("--world-size has no effect here: it acts with dry-run, check-layout, or cost "
                  "model, only"));
  const ParsedCommandLine model =
      parse("simulate --cost model --hardware h100.toml --dispatch-scheme node --communication 1");
  EXPECT_EQ(model.options.simulate.cost, SimulatedCosts::kModel);
  EXPECT_EQ(model.options.simulate.dispatch_scheme, DispatchScheme::kPerNode);
  EXPECT_THAT(model.notices,
              ElementsAre("--communication has no effect here: it acts with cost unit only"));
  EXPECT_EQ(error_of("simulate --lr 1"), "--lr belongs to pretrain, plan and sft, not to simulate");
}

TEST(CommandLine, RunsNeedNoName) {
  const CurveOptions compared =
      parse("compare-loss a --tolerance 0.5 b --json --metric lr").options.curves;
  EXPECT_THAT(compared.runs, ElementsAre("a", "b"));
  EXPECT_EQ(compared.tolerance, 0.5);
  EXPECT_EQ(compared.metric, "lr");
  EXPECT_THAT(parse("plot --picture x.svg a").options.curves.runs, ElementsAre("a"));
  EXPECT_THAT(parse("plot --picture x.svg --runs a b").options.curves.runs, ElementsAre("a", "b"));
  EXPECT_EQ(parse("plot a").options.curves.picture, "");
  EXPECT_EQ(error_of("compare-loss --tolerance 1"), "compare-loss needs --runs");
  EXPECT_THAT(parse("compare-loss --help").help_text,
              HasSubstr("usage: moetron compare-loss [--runs] TEXT ... [--option value ...]"));
}

TEST(CommandLine, UnknownNamesAreErrorsWithTheNearest) {
  EXPECT_EQ(error_of(pretrain("--micro-batchsize 3")),
            "unknown option --micro-batchsize; the nearest known is --micro-batch-size");
  EXPECT_THAT(error_of(pretrain("--expert-tensor-paralel-size 1")),
              HasSubstr("--expert-tensor-parallel-size"));
  EXPECT_THAT(error_of(pretrain("--no-swigloo")), HasSubstr("unknown option"));
  EXPECT_EQ(error_of("pertrain"), "unknown command \"pertrain\"; the nearest known is pretrain");
  EXPECT_EQ(error_of("inspect --lr 1"), "the command inspect is not there yet");
  EXPECT_EQ(error_of(pretrain("--bf16 False")), "unexpected argument \"False\"");
  EXPECT_EQ(error_of(pretrain("--bf16=true")), "--bf16 takes no value");
  EXPECT_EQ(error_of(pretrain("--seed 1 stray")), "unexpected argument \"stray\"");
}

TEST(CommandLine, WrongValuesNameOptionAndValue) {
  EXPECT_EQ(error_of(pretrain("--lr fast")), "--lr expects a number, not \"fast\"");
  EXPECT_EQ(error_of(pretrain("--lr nan")), "--lr must be a finite number, not nan");
  EXPECT_EQ(error_of(pretrain("--lr 1e999")), "--lr must be a finite number, not 1e999");
  EXPECT_EQ(error_of(pretrain("--lr -1")), "--lr must be above 0, not -1");
  EXPECT_EQ(error_of(pretrain("--lr 0")), "--lr must be above 0, not 0");
  EXPECT_EQ(error_of(pretrain("--adam-beta1 1")), "--adam-beta1 must be below 1, not 1");
  EXPECT_EQ(error_of(pretrain("--num-layers 0")), "--num-layers must be at least 1, not 0");
  EXPECT_EQ(error_of(pretrain("--num-layers 2.5")),
            "--num-layers expects a whole number, not \"2.5\"");
  EXPECT_EQ(error_of(pretrain("--num-layers 3000000000")),
            "--num-layers must be at most 2147483647, not 3000000000");
  EXPECT_EQ(error_of(pretrain("--seed 99999999999999999999")),
            "--seed must fit into 64 bits, not 99999999999999999999");
  EXPECT_EQ(error_of(pretrain("--lr-decay-style round")),
            "--lr-decay-style expects one of constant, linear, cosine, inverse-square-root, WSD, "
            "not \"round\"");
  EXPECT_EQ(error_of(pretrain("--save")), "--save needs a value");
  EXPECT_EQ(error_of(pretrain("--save --bf16")), "--save needs a value");
  EXPECT_EQ(error_of(pretrain("--save=")), "--save expects a text, not \"\"");
  EXPECT_EQ(error_of(pretrain("--save \xff\xfe")), "--save must be valid UTF-8");
  EXPECT_EQ(error_of(pretrain("--split 99,,1")), "--split expects a number, not \"\"");
  EXPECT_EQ(error_of(pretrain("--qk-layernorm=maybe")),
            "--qk-layernorm expects true or false, not \"maybe\"");
}

TEST(CommandLine, AllMistakesAreReportedTogether) {
  EXPECT_EQ(error_of("pretrain --lr x --zzz 1 --micro-batch-size 1 --train-iters 1"),
            "unknown option --zzz\n"
            "--lr expects a number, not \"x\"\n"
            "pretrain needs --seq-length, --global-batch-size, --data-path or --mock-data");
}

TEST(CommandLine, ValuesHaveAStandingOfTheirOwn) {
  EXPECT_EQ(error_of(pretrain("--tensor-model-parallel-size 1 --hidden-dropout 0")), "");
  EXPECT_EQ(error_of(pretrain("--hidden-dropout 0.1")),
            "--hidden-dropout 0.1 is not there yet: dropout (0 works)");
  EXPECT_EQ(error_of(pretrain("--no-swiglu")),
            "--no-swiglu is not there yet: MLPs without a SiLU gate (true works)");
  EXPECT_EQ(error_of(pretrain("--delay-wgrad-compute False")), "");
  EXPECT_EQ(error_of(pretrain("--fp16")), "--fp16 is not there yet: fp16 with loss scaling");
  EXPECT_THAT(parse(pretrain("--scheduler zb-v --use-flash-attn")).notices,
              ElementsAre("--use-flash-attn has no effect here: the fastest attention of the "
                          "machine is always used",
                          "--scheduler: with one pipeline rank schedules differ only in what hides "
                          "expert communication"));
  EXPECT_THAT(parse(pretrain("--use-flash-attn False")).notices, ElementsAre());
  EXPECT_THAT(parse(pretrain("--transformer-impl local --use-flash-attn")).notices, ElementsAre());
  EXPECT_EQ(error_of(pretrain("--module-impl {core_attn:local,mlp:local}")),
            "--module-impl expects one of core_attn:local, core_attn:transformer_engine, not "
            "\"mlp:local\"");
}

TEST(CommandLine, CommandsMayHaveOptionsOfOneName) {
  const Options options =
      parse("convert --load a --save b --from hf --to hf --dtype fp16 --threads 3 --verify")
          .options;
  EXPECT_EQ(options.convert.dtype, WeightDtype::kFp16);
  EXPECT_EQ(options.training.dtype, Dtype::kAuto);
  EXPECT_EQ(options.runtime.num_threads, 3);
  EXPECT_EQ(options.checkpoint.verify, true);
  EXPECT_THAT(error_of(pretrain("--dtype stored")), HasSubstr("--dtype expects one of auto"));
  EXPECT_THAT(error_of("convert --to hf --dtype auto"), HasSubstr("--dtype expects one of stored"));
  EXPECT_EQ(parse("preprocess --input x --output-prefix y --from wudao").options.preprocess.from,
            RecordLayout::kWudao);
  EXPECT_EQ(parse("preprocess --input x --output-prefix y --from alpaca").options.preprocess.from,
            RecordLayout::kAlpaca);
  EXPECT_EQ(parse(pretrain("--no-verify")).options.checkpoint.verify, false);
  EXPECT_EQ(parse("convert --load a --save b").options.convert.to, ModelFormat::kHf);
}

TEST(CommandLine, OptionsThatIdleBesideOthersAreDropped) {
  const ParsedCommandLine alone = parse(pretrain("--moe-router-bias-update-rate 5"));
  EXPECT_EQ(alone.options.moe.moe_router_bias_update_rate, 1e-3);
  EXPECT_THAT(alone.notices, ElementsAre(HasSubstr("moe-router-deepseekv3 only")));
  const std::string with = "--moe-router-bias-update-rate 5 --moe-router-deepseekv3";
  EXPECT_EQ(parse(pretrain(with)).options.moe.moe_router_bias_update_rate, 5);
}

TEST(CommandLine, OneRankLeavesTheAxesIdle) {
  const ParsedCommandLine one =
      parse(pretrain("--sequence-parallel --moe-token-dispatcher-type deepep --model-family "
                     "deepseek --mla-replicate-l1 --moe-token-drop-policy position"));
  EXPECT_THAT(
      one.notices,
      ElementsAre("no effect here: --sequence-parallel, --mla-replicate-l1 (it acts with "
                  "tensor-model-parallel-size above 1 only); --moe-token-dispatcher-type (with one "
                  "expert rank every kind is the same local permutation); --moe-token-drop-policy "
                  "(without a capacity no token is dropped)"));
  EXPECT_FALSE(one.options.model.mla_replicate_l1);
  EXPECT_EQ(one.options.parallel.sequence_parallel, std::nullopt);
  const ParsedCommandLine two =
      parse(pretrain("--tensor-model-parallel-size 2 --expert-tensor-parallel-size 2 "
                     "--sequence-parallel --moe-token-dispatcher-type deepep --model-family "
                     "deepseek --mla-replicate-l1 --mla-fuse-qkv"));
  EXPECT_THAT(two.notices, ElementsAre());
  EXPECT_TRUE(two.options.model.mla_replicate_l1 && two.options.model.mla_fuse_qkv);
  EXPECT_EQ(two.options.parallel.sequence_parallel, true);
  EXPECT_EQ(two.options.parallel.tensor_model_parallel_for_expert, 2);
  EXPECT_THAT(parse(pretrain("--mla-fuse-qkv")).notices,
              ElementsAre("--mla-fuse-qkv has no effect here: it acts on the family deepseek "
                          "only"));
  EXPECT_THAT(parse(pretrain("--nccl-max-ctas 8 --device cpu")).notices,
              ElementsAre("--nccl-max-ctas has no effect here: it acts with distributed-backend "
                          "nccl only"));
  EXPECT_EQ(parse(pretrain("--nccl-max-ctas 8")).options.runtime.nccl_max_ctas, 8);
}

TEST(CommandLine, AnOverlapKindWithoutBlocksIsRemarkedOn) {
  const ParsedCommandLine parsed = parse(
      pretrain("--expert-model-parallel-size 2 --moe-token-dispatcher-type-patch overlap_deepep"));
  EXPECT_THAT(parsed.notices,
              ElementsAre("--moe-token-dispatcher-type-patch: only dualpipev and dualpipev+ have "
                          "blocks; under another schedule the shared expert alone runs beside the "
                          "communication"));
  EXPECT_EQ(parsed.options.moe.moe_token_dispatcher_type, TokenDispatcher::kOverlapDeepep)
      << "kept";
  EXPECT_THAT(parse(pretrain("--expert-model-parallel-size 2 --moe-token-dispatcher-type alltoall"))
                  .notices,
              ElementsAre());
}

TEST(CommandLine, ReadsThePipeline) {
  const ParsedCommandLine parsed =
      parse(pretrain("--pipeline-model-parallel-size 2 --scheduler dualpipev+ "
                     "--virtual-hetero-pipeline-stages 2,2,1,0 --pipeline-activation-cap 4 "
                     "--pipeline-communication 0.75 --expert-model-parallel-size 2 "
                     "--moe-token-dispatcher-type overlap_deepep"));
  EXPECT_THAT(parsed.notices, ElementsAre());
  const ParallelOptions& parallel = parsed.options.parallel;
  EXPECT_EQ(parallel.scheduler, ScheduleKind::kDualPipeVPlus);
  EXPECT_THAT(parallel.virtual_hetero_pipeline_stages, ElementsAre(2, 2, 1, 0));
  EXPECT_EQ(parallel.pipeline_activation_cap, 4);
  EXPECT_EQ(parallel.pipeline_communication, 0.75);
  EXPECT_THAT(parse(pretrain("--pipeline-model-parallel-size 2 --scheduler zb-v "
                             "--pipeline-activation-cap 4"))
                  .notices,
              ElementsAre("--pipeline-activation-cap has no effect here: it acts with scheduler "
                          "dualpipev+ only"));
  EXPECT_EQ(error_of(pretrain("--hetero-pipeline-stages 2 1.5")),
            "--hetero-pipeline-stages expects a whole number, not \"1.5\"");
  EXPECT_EQ(error_of(pretrain("--hetero-pipeline-stages 2 -1")),
            "--hetero-pipeline-stages must be at least 0, not -1");
}

TEST(CommandLine, TheStrongestRecomputeActs) {
  const ParsedCommandLine parsed =
      parse(pretrain("--mlp-recompute --moe-layer-recompute --recompute-granularity full "
                     "--recompute-num-layers 2"));
  EXPECT_THAT(parsed.notices,
              ElementsAre("no effect here: --mlp-recompute, --moe-layer-recompute "
                          "(recompute-granularity full recomputes the whole layer)"));
  EXPECT_FALSE(parsed.options.memory.mlp_recompute || parsed.options.memory.moe_layer_recompute);
  EXPECT_EQ(parsed.options.memory.recompute_num_layers, 2);
  const ParsedCommandLine weaker =
      parse(pretrain("--mlp-recompute --moe-layer-recompute --recompute-num-layers 3"));
  EXPECT_THAT(weaker.notices,
              ElementsAre("no effect here: --recompute-num-layers (it acts with "
                          "recompute-granularity full only); --mlp-recompute (moe-layer-recompute "
                          "recomputes the whole expert part)"));
  EXPECT_TRUE(weaker.options.memory.moe_layer_recompute);
  EXPECT_EQ(weaker.options.memory.recompute_num_layers, 1);
  EXPECT_TRUE(parse(pretrain("--mlp-recompute")).options.memory.mlp_recompute);
  const ParsedCommandLine selective = parse(pretrain("--recompute-granularity selective"));
  EXPECT_THAT(selective.notices, ElementsAre(HasSubstr("recompute-modules says what is")));
  EXPECT_FALSE(selective.options.memory.recompute_granularity);
  EXPECT_EQ(error_of(pretrain("--recompute-method block")),
            "--recompute-method block is not there yet: recompute of the first layers only");
}

TEST(CommandLine, BothGroupedProductsAreOne) {
  const auto grouped = [](const char* words) {
    return parse(pretrain(words)).options.moe.moe_grouped_gemm;
  };
  EXPECT_EQ(grouped(""), std::nullopt);  // where the device has one
  EXPECT_EQ(grouped("--moe-grouped-gemm"), true);
  EXPECT_EQ(grouped("--moe-grouped-gemm-te"), true);
  EXPECT_EQ(grouped("--moe-grouped-gemm --moe-grouped-gemm-te"), true);
  EXPECT_EQ(grouped("--no-moe-grouped-gemm"), false);
}

TEST(CommandLine, HelpListsWhatWorks) {
  EXPECT_THAT(parse("").help_text, HasSubstr("pretrain"));
  EXPECT_TRUE(parse("--help").help);
  const ParsedCommandLine parsed = parse("generate --help --nonsense");
  EXPECT_TRUE(parsed.help);
  EXPECT_THAT(parsed.help_text, HasSubstr("--max-new-tokens N\n"));
  EXPECT_THAT(parsed.help_text, Not(HasSubstr("--train-iters")));
  EXPECT_THAT(parse("pretrain --help").help_text,
              ::testing::ContainsRegex("Not there yet\n[^:]*--rampup-batch-size"));
  EXPECT_THAT(parse("pretrain --help").help_text,
              HasSubstr("--dtype NAME, --bf16, --fp32, --fp16\n"));
}

TEST(CommandLine, OffloadActsWithHybridAdamOnly) {
  const std::string offload =
      "--optimizer-offload-policy static --optimizer-offload-fraction 0.5 --optimizer-enable-pin ";
  const ParsedCommandLine hybrid = parse(pretrain(offload + "--optimizer hybridadam"));
  EXPECT_TRUE(hybrid.notices.empty());
  EXPECT_EQ(hybrid.options.optimizer.optimizer_offload_fraction, 0.5);
  EXPECT_TRUE(hybrid.options.optimizer.optimizer_enable_pin);
  const ParsedCommandLine plain = parse(pretrain(offload + "--optimizer adamw"));
  EXPECT_EQ(plain.options.optimizer.optimizer, OptimizerKind::kAdam);
  EXPECT_FALSE(plain.options.optimizer.optimizer_enable_pin);
  EXPECT_THAT(plain.notices,
              ElementsAre("no effect here: --optimizer-offload-policy, "
                          "--optimizer-offload-fraction, --optimizer-enable-pin (it acts with "
                          "optimizer hybridadam only)"));
  EXPECT_THAT(parse(pretrain(offload + "--optimizer-cpu-offload --device cpu")).notices,
              ElementsAre("--optimizer-enable-pin has no effect here: with device cpu nothing is "
                          "copied",
                          "--optimizer-cpu-offload: with device cpu all of Adam's states are in "
                          "host memory"));
  EXPECT_THAT(error_of(pretrain("--optimizer hybridadam --optimizer-offload-fraction 1.5")),
              HasSubstr("--optimizer-offload-fraction"));
  EXPECT_THAT(error_of(pretrain("--optimizer hybridadam --optimizer-offload-policy auto")),
              HasSubstr("--optimizer-offload-policy"));
}

}  // namespace
}  // namespace moetron
