#include "moetron/run/explain.h"

#include <algorithm>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/file.h"
#include "moetron/config/option_value.h"
#include "moetron/run/run_test_data.h"

namespace moetron {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using Variables = std::map<std::string, std::string>;

Explanation explain_text(const std::string& text, const Variables& variables = {},
                         std::vector<std::string> arguments = {},
                         std::optional<int64_t> num_ranks = {}) {
  ShellContext context;
  context.variable = [&](const std::string& name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  };
  context.arguments = std::move(arguments);
  return explain(find_training_command(text, "run.sh", std::move(context)), num_ranks,
                 [](const Options& options, RunFacts& facts) {
                   facts.model_folder = options.checkpoint.load;
                 });
}

Explanation explain_file(const std::string& name, const Variables& variables = {},
                         std::vector<std::string> arguments = {},
                         std::optional<int64_t> num_ranks = {}) {
  return explain_text(read_file("tests/" + name), variables, std::move(arguments), num_ranks);
}

// The names in a group; of "without --x", too.
std::vector<std::string> names(const std::vector<ExplainedOption>& options) {
  std::vector<std::string> list;
  for (const ExplainedOption& option : options) {
    const size_t end =
        option.text.starts_with("without ") ? std::string::npos : option.text.find(' ');
    list.push_back(option.text.substr(0, end));
  }
  return list;
}

std::string note_of(const std::vector<ExplainedOption>& options, const std::string& name) {
  for (const ExplainedOption& option : options)
    if (option.text.substr(0, option.text.find(' ')) == name) return option.note;
  return "(absent)";
}

// What training needs beside a model's shape; of Megatron's defaults, none is another than ours.
constexpr const char* kTraining =
    " --micro-batch-size 1 --global-batch-size 8 --train-iters 10 --lr 1e-4 --data-path d "
    "--seq-length 64 --vocab-size 1000 --attention-dropout 0 --hidden-dropout 0 --bf16 ";
constexpr const char* kShape =
    " --num-layers 4 --hidden-size 64 --num-attention-heads 4 --ffn-hidden-size 128 --swiglu "
    "--normalization RMSNorm --norm-epsilon 1e-5 --disable-bias-linear "
    "--position-embedding-type rope ";

std::string gpt(const std::string& more = "") {
  return std::string("torchrun --nproc_per_node 8 pretrain_gpt.py") + kTraining + kShape + more;
}

// Our command, as the program would read it.
Options options_of(const Explanation& explanation) {
  const auto& words = explanation.command;
  const auto program = std::find(words.begin(), words.end(), "moetron");
  return parse_words({program + 1, words.end()}).options;
}

TEST(Explain, ADenseModelStartsAsItIs) {
  const Explanation explanation = explain_text(gpt());
  EXPECT_EQ(obstacles(explanation), "");
  EXPECT_EQ(explanation.num_ranks, 8);
  EXPECT_THAT(names(explanation.added), ElementsAre("--model-family"));
  ASSERT_TRUE(explanation.run);
  EXPECT_EQ(explanation.run->sizes.dp, 8);
  EXPECT_EQ(explanation.run->model.family, ModelConfig::Family::kLlama);
  EXPECT_THAT(explanation.command, Contains("--no-python"));
  EXPECT_THAT(explanation.command, Not(Contains("--swiglu"))) << "it is so in any case";
  const Options options = options_of(explanation);
  EXPECT_NO_THROW(validate(options, Command::kPretrain, 8));
  EXPECT_EQ(options.model.model_family, ModelFamily::kLlama);
  EXPECT_EQ(options.training.seq_length, 64);
}

TEST(Explain, MegatronsDefaultsAreNotForgotten) {
  const Explanation explanation = explain_text(
      "torchrun --nproc_per_node 4 pretrain_gpt.py --num-layers 4 --hidden-size 64 --lr 1 "
      "--num-attention-heads 4 --tensor-model-parallel-size 2 --num-experts 8 --vocab-size 100 "
      "--ffn-hidden-size 128 --seq-length 64 --micro-batch-size 2 --train-iters 10 --data-path d "
      "--moe-router-topk 2 --fp8-format e4m3");
  EXPECT_THAT(
      names(explanation.missing),
      ElementsAre("without --normalization", "without --swiglu", "without --disable-bias-linear",
                  "without --position-embedding-type", "without --attention-dropout",
                  "without --hidden-dropout", "without --fp8-recipe"));
  EXPECT_THAT(names(explanation.added), ElementsAre("--norm-epsilon", "--moe-ffn-hidden-size",
                                                    "--dtype", "--tensor-model-parallel-for-expert",
                                                    "--global-batch-size", "--model-family"));
  const Options options = options_of(explanation);
  EXPECT_EQ(options.moe.moe_ffn_hidden_size, 128);
  EXPECT_EQ(options.model.norm_epsilon, 1e-5);
  EXPECT_EQ(options.parallel.tensor_model_parallel_for_expert, 2);
  EXPECT_EQ(options.training.global_batch_size, 4);
  EXPECT_EQ(options.training.dtype, Dtype::kFp32);
  // What Megatron takes from the checkpoint's arguments has no default.
  const Explanation with_args =
      explain_text("pretrain_gpt.py --use-checkpoint-args --load s --num-experts 8");
  EXPECT_THAT(names(with_args.missing), IsEmpty());
  EXPECT_THAT(names(with_args.added), ElementsAre("--norm-epsilon", "--dtype", "--model-family"));
  // Without experts, 8 bits or ranks, nothing is added for them.
  const Explanation of_ours = explain_text("moetron pretrain --num-layers 4");
  EXPECT_THAT(names(of_ours.missing), IsEmpty()) << "our defaults are ours";
}

TEST(Explain, EveryOptionHasItsGroup) {
  const Explanation explanation = explain_text(
      gpt("--manual-gc --no-masked-softmax-fusion --save s --load s --mtp-num-layers 1 --lr_decay "
          "--frobnicate 1 2 --sequence-parallel --num-layers 6 --non-persistent-save-interval 5"));
  EXPECT_THAT(names(explanation.idle),
              ElementsAre("--manual-gc", "--no-masked-softmax-fusion", "--sequence-parallel"));
  EXPECT_THAT(note_of(explanation.idle, "--manual-gc"), HasSubstr("no Python"));
  EXPECT_THAT(names(explanation.other), ElementsAre("--save", "--load"));
  EXPECT_THAT(note_of(explanation.other, "--save"), HasSubstr("Hugging Face"));
  EXPECT_THAT(names(explanation.missing),
              ElementsAre("--mtp-num-layers", "--non-persistent-save-interval"));
  EXPECT_EQ(note_of(explanation.missing, "--mtp-num-layers"), "multi-token prediction");
  EXPECT_THAT(names(explanation.unknown), ElementsAre("--lr_decay", "--frobnicate"));
  EXPECT_THAT(note_of(explanation.unknown, "--lr_decay"), HasSubstr("--lr-decay"));
  EXPECT_THAT(explanation.same, Contains(Field(&ExplainedOption::text, "--num-layers 6")))
      << "the last of a repeated option counts";
  EXPECT_THAT(explanation.same, Not(Contains(Field(&ExplainedOption::text, "--num-layers 4"))));
  EXPECT_THAT(explanation.command, Not(Contains("--load"))) << "--save continues by itself";
  EXPECT_EQ(obstacles(explanation),
            "4 things stand between this command line and a run here: 2 options are missing, 2 "
            "options are unknown");
}

TEST(Explain, ContradictionsAreToldTogether) {
  const Explanation explanation =
      explain_text(gpt("--tensor-model-parallel-size 3 --min-lr 1 --seq-length x --hidden-size 66 "
                       "--num-query-groups 2"));
  EXPECT_THAT(explanation.contradictions,
              ElementsAre("--seq-length expects a whole number, not \"x\"",
                          HasSubstr("contradicts group-query-attention (false)"),
                          HasSubstr("num-attention-heads (4) must divide hidden-size (66)"),
                          HasSubstr("number of ranks (8)"), HasSubstr("num-attention-heads (4)"),
                          HasSubstr("num-query-groups (2)"), HasSubstr("ffn-hidden-size (128)"),
                          HasSubstr("min-lr (1)")));
  EXPECT_FALSE(explanation.run);
}

TEST(Explain, OptionsOfMegatronsScripts) {
  const Explanation works = explain_text(
      gpt("--recompute-activations --encoder-seq-length 32 --exit-duration-in-mins 5750000"));
  EXPECT_EQ(obstacles(works), "");
  EXPECT_EQ(works.run->batch.seq_length, 32);
  EXPECT_THAT(note_of(works.idle, "--recompute-activations"), HasSubstr("keeps no scores"));
  const Explanation others = explain_text(gpt(
      "--rotary-interleaved --apply-residual-connection-post-layernorm --sft --window-size 128 0 "
      "--fp16-lm-cross-entropy"));
  EXPECT_THAT(names(others.missing),
              ElementsAre("--rotary-interleaved", "--apply-residual-connection-post-layernorm",
                          "--sft", "--window-size", "--fp16-lm-cross-entropy"));
  EXPECT_THAT(note_of(others.missing, "--sft"), HasSubstr("moetron sft"));
  const Explanation latent = explain_text(
      gpt("--multi-latent-attention --kv-lora-rank 8 --qk-head-dim 8 --qk-pos-emb-head-dim 8 "
          "--v-head-dim 8 --kv-channels 128 --qk-layernorm --num-experts 8 --moe-router-topk 2 "
          "--moe-router-pre-softmax "
          "--moe-ffn-hidden-size 32 "
          "--rotary-scaling-factor 1 --original-max-position-embeddings 64"));
  EXPECT_THAT(latent.contradictions, IsEmpty()) << "Megatron takes no notice of it either";
  EXPECT_THAT(note_of(latent.idle, "--kv-channels"), HasSubstr("widths of its own"));
}

// As under Slurm: a shell of each node's starts the ranks.
TEST(Explain, ACommandInOneWordKeepsWhatIsOpen) {
  const std::string script =
      "DIST=(--nproc_per_node 4 --nnodes ${NODES:-2} --node_rank $RANK_OF_NODE --master_addr "
      "$(hosts | head -n 1))\n"
      "ARGS=(--num-layers 2 --tensor-model-parallel-size $TP)\n"
      "[[ -n ${LOAD} ]] && ARGS+=(--load $LOAD)\n";
  for (const std::string& command :
       {std::string("srun bash -c \"torchrun ${DIST[*]} pretrain_gpt.py ${ARGS[*]}\""),
        std::string(
            "srun bash -c 'torchrun --nproc_per_node 4 --nnodes 2 --node_rank $RANK_OF_NODE "
            "--master_addr a pretrain_gpt.py --tensor-model-parallel-size $TP'")}) {
    const Explanation explanation = explain_text(script + command);
    EXPECT_EQ(explanation.num_ranks, 8) << command;
    EXPECT_THAT(explanation.open, ElementsAre("TP")) << command;
    EXPECT_THAT(explanation.contradictions, IsEmpty()) << command;
    EXPECT_THAT(explanation.open_words, Contains("$RANK_OF_NODE")) << command;
    EXPECT_THAT(explanation.command, Not(Contains("--load"))) << command;
  }
  const Explanation quoted =
      explain_text(script + "srun bash -c \"torchrun ${DIST[*]} pretrain_gpt.py\"");
  EXPECT_THAT(quoted.command, Contains("$(hosts | head -n 1)"));
}

TEST(Explain, WhatNobodyWroteIsNotTheUsersContradiction) {
  const Explanation explanation = explain_text(
      "torchrun --nproc_per_node 4 pretrain_gpt.py --num-experts 6 --moe-router-topk 8" +
      std::string(kTraining) + kShape + "--norm-epsilon 1e-5 --moe-ffn-hidden-size 32");
  EXPECT_THAT(explanation.contradictions, Contains(HasSubstr("moe-router-topk (8)")));
  const Explanation added = explain_text(
      "torchrun --nproc_per_node 4 pretrain_gpt.py --num-experts 1 --tensor-model-parallel-size "
      "1 " +
      std::string(kTraining) + kShape);
  EXPECT_THAT(
      added.contradictions,
      Contains(AllOf(HasSubstr("moe-router-topk (2)"),
                     HasSubstr("(--moe-router-topk 2: not yours, what Megatron would take)"))));
}

TEST(Explain, AnAddedFlagIsWrittenOnce) {
  const Explanation explanation = explain_text(
      "pretrain_gpt.py --num-experts 8 --multi-latent-attention --kv-lora-rank 8 --qk-head-dim 8 "
      "--qk-pos-emb-head-dim 8 --v-head-dim 8 --moe-ffn-hidden-size 32 --moe-router-topk 2 "
      "--moe-router-load-balancing-type aux_loss --moe-shared-expert-intermediate-size 32" +
      std::string(kTraining) + kShape);
  EXPECT_THAT(names(explanation.added), Contains("--moe-router-pre-softmax"));
  const auto& words = explanation.command;
  const auto at = std::find(words.begin(), words.end(), "--moe-router-pre-softmax");
  ASSERT_GT(words.end() - at, 2);
  EXPECT_EQ(at[1], "false");
  EXPECT_TRUE(at[2].starts_with("--")) << at[2];
  EXPECT_FALSE(*options_of(explanation).moe.moe_router_pre_softmax);
}

TEST(Explain, WhatIsMissingIsNotCalledWrongBesides) {
  const Explanation explanation = explain_text("pretrain_gpt.py --min-lr 0 --train-iters 0");
  EXPECT_THAT(explanation.contradictions, Contains(HasSubstr("--train-iters must be at least 1")));
  EXPECT_THAT(explanation.contradictions, Contains(HasSubstr("pretrain needs ")));
  for (const std::string& sentence : explanation.contradictions)
    EXPECT_TRUE(!sentence.starts_with("lr (") && !sentence.starts_with("micro-batch-size (") &&
                !sentence.starts_with("train-iters ("))
        << sentence;
}

TEST(Explain, WhatIsOpenIsNamedAndWhatIsConditionalSaysSo) {
  const std::string script =
      "A=(--save $1)\nif [ -f some/file ]; then A+=(--log-interval $V); fi\n"
      "if [ -n \"$W\" ]; then A+=(--eval-iters $W); fi\n" +
      gpt("--tensor-model-parallel-size $TP ${MORE} $(more) ${A[@]}");
  const Explanation explanation = explain_text(script);
  EXPECT_THAT(explanation.open, ElementsAre("TP", "$(more)", "V"));
  EXPECT_THAT(explanation.contradictions, IsEmpty()) << "nothing can be known";
  EXPECT_THAT(explanation.command, Contains("$TP"));
  EXPECT_EQ(obstacles(explanation),
            "3 things stand between this command line and a run here: 3 values are open");
  EXPECT_THAT(explanation.same,
              Contains(AllOf(Field(&ExplainedOption::text, "--log-interval $V"),
                             Field(&ExplainedOption::condition, "[ -f some/file ]"))));
  EXPECT_THAT(explanation.open_words, Contains("$TP"));
  EXPECT_THAT(explanation.command, AllOf(Not(Contains("--eval-iters")), Not(Contains("${MORE}"))))
      << "nobody has set them, and the shell would leave them out";
  const Explanation known =
      explain_text(script.substr(0, script.find("$(more)")) + "${A[@]}",
                   {{"TP", "2"}, {"MORE", "--eval-iters 3"}, {"V", "5"}}, {"runs/a"});
  EXPECT_EQ(obstacles(known), "");
  EXPECT_THAT(known.command, Contains("--eval-iters"));
  EXPECT_EQ(options_of(known).checkpoint.save, "runs/a");
  EXPECT_EQ(known.run->sizes.tp, 2);
}

TEST(Explain, TheCommandIsFoundInScriptsOfManyShapes) {
  const auto ranks = [](const std::string& text, std::optional<int64_t> asked = {}) {
    return explain_text(text, {}, {}, asked).num_ranks;
  };
  EXPECT_EQ(ranks("echo a\npython pretrain_gpt.py --lr 1\necho b"), 1);
  EXPECT_EQ(ranks("python pretrain_gpt.py --lr 1", 16), 16);
  EXPECT_EQ(
      ranks("python -m torch.distributed.run --nproc-per-node=4 --nnodes 2 a/pretrain_x.py", 3), 8);
  EXPECT_EQ(ranks("CMD=\"torchrun --nproc_per_node 4 pretrain_gpt.py --lr 1\"\neval $CMD"), 4);
  EXPECT_EQ(ranks("srun bash -c \"cd x; torchrun --nproc_per_node 2 pretrain_gpt.py --lr 1\""), 2);
  EXPECT_EQ(ranks("torchrun --nproc_per_node $GPUS pretrain_gpt.py --lr 1", 5), 5);
  EXPECT_EQ(ranks("srun --ntasks=16 python -u pretrain_gpt.py --lr 1"), 16);
  EXPECT_EQ(ranks("srun -N 2 --ntasks-per-node=8 bash -c \"python pretrain_gpt.py --lr 1\""), 16);
  EXPECT_EQ(ranks("srun -n16 pretrain_gpt.py --lr 1"), 16);
  EXPECT_EQ(ranks("mpirun --allow-run-as-root -np 16 python pretrain_gpt.py --lr 1", 3), 16);
  EXPECT_EQ(ranks("srun -N 2 torchrun --nproc_per_node 8 --nnodes 2 pretrain_gpt.py --lr 1"), 16);
  const Explanation mpi = explain_text("mpirun -np 16 python -u pretrain_gpt.py --lr 1");
  EXPECT_THAT(std::vector(mpi.command.begin(), mpi.command.begin() + 5),
              ElementsAre("mpirun", "-np", "16", "moetron", "pretrain"));
  for (const char* open :
       {"torchrun --nproc_per_node `nvidia-smi -L | wc -l` pretrain_gpt.py --lr 1",
        "mpirun python pretrain_gpt.py --lr 1"}) {
    const Explanation explanation = explain_text(open);
    EXPECT_EQ(explanation.num_ranks, std::nullopt) << open;
    EXPECT_EQ(explanation.open.size(), 1u) << open;
    EXPECT_THAT(explanation.contradictions, IsEmpty()) << open;
  }
  EXPECT_EQ(ranks("torchrun --no-python --nproc_per_node 2 \"$MOETRON\" pretrain --lr 1"), 2);
  EXPECT_EQ(ranks("--lr 1\n--min-lr 0", 2), 2);
  EXPECT_THROW(ranks("echo a\nls"), InputError);
  EXPECT_THROW(ranks(""), InputError);
  const TrainingCommand words =
      training_command_of({"torchrun", "--nproc_per_node", "2", "pretrain_gpt.py", "--lr", "1"});
  EXPECT_EQ(words.num_ranks, 2);
  EXPECT_EQ(words.arguments.size(), 2u);
  EXPECT_EQ(training_command_of({"--lr", "1"}).arguments.size(), 2u);
}

TEST(Explain, HostileWordsEndInOneSentence) {
  std::string many = "pretrain_gpt.py";
  for (int i = 0; i < 6000; ++i) many += " --x" + std::to_string(i);
  EXPECT_THROW(explain_text(many), InputError);
  const Explanation explanation = explain_text("pretrain_gpt.py --" + std::string(1 << 20, 'a'));
  ASSERT_EQ(explanation.unknown.size(), 1u);
  EXPECT_LT(explanation.unknown[0].text.size(), 200u);
}

TEST(Explain, TheListsOfTheGuide) {
  const Variables layout{
      {"EP", "8"}, {"PP", "1"}, {"TD", "alltoall"}, {"OPTIONAL", ""}, {"PATHS", "--save s"}};
  for (const char* list : {"guide/pretrain_deepseek.txt", "guide/pretrain_qwen_moe.txt"}) {
    const Explanation explanation = explain_file(list, layout, {}, 64);
    EXPECT_EQ(obstacles(explanation), "") << list;
    EXPECT_THAT(names(explanation.added), ElementsAre("--model-family")) << list;
    ASSERT_TRUE(explanation.run) << list;
    EXPECT_EQ(explanation.run->sizes.ep, 8);
    EXPECT_EQ(explanation.assumed_vocabulary,
              explanation.run->model.mla ? 128815 : 151669);  // of the released tokenizer
    EXPECT_NO_THROW(validate(options_of(explanation), Command::kPretrain, 64)) << list;
  }
  const Explanation open = explain_file("guide/pretrain_deepseek.txt");
  EXPECT_THAT(open.open, ElementsAre("EP", "PP", "TD"));
  EXPECT_THAT(open.same, Contains(Field(&ExplainedOption::text,
                                        "--moe-token-dispatcher-type-patch "
                                        "$TD")));
}

// The manner of the guide's scripts: a variable for each option, many of them optional.
TEST(Explain, AScriptOfOptionalVariables) {
  const std::string script = R"(NNODES=$NNODES
RANKS=$((8*${NNODES}))
SCHED=${SCHED:-1f1b}
ARGS=" --pipeline-model-parallel-size ${PP} --moe-token-dispatcher-type-patch ${TD:-allgather} "
if [ "$USE_FLASH3" -eq 1 ]; then ARGS="$ARGS --no-bias-swiglu-fusion"; fi
if [ -n "$FORCE" ]; then ARGS="$ARGS --force-drop-and-padding"; fi
if [ -n "$VPP" ]; then ARGS="$ARGS --num-layers-per-virtual-pipeline-stage ${VPP} "; fi
if [ "$SCHED" != "1f1b" ]; then ARGS="$ARGS --scheduler ${SCHED} "; fi
if [ -n "$HPP" ]; then
  if [ "$SCHED" == "1f1b" ]; then ARGS="$ARGS --hetero-pipeline-stages $HPP "
  else ARGS="$ARGS --virtual-hetero-pipeline-stages $HPP "; fi
fi
if [ "$RECOMPUTE" == "1" ]; then ARGS="$ARGS --recompute-granularity full"
elif [ "$MOE_LAYER_RECOMPUTE" == "1" ]; then ARGS="$ARGS --moe-layer-recompute"; fi
LAUNCHER="torchrun --nproc_per_node 8 --nnodes ${NNODES} --node_rank ${NODE_RANK}"
echo ${LAUNCHER} pretrain_qwen_moe.py --num-experts 8 --moe-router-topk 2 --moe-ffn-hidden-size 32   ${ARGS} )" +
                             gpt().substr(gpt().find(kTraining)) + " --global-batch-size 64";
  const Variables variables{
      {"NNODES", "2"}, {"NODE_RANK", "0"}, {"PP", "2"}, {"HPP", "1 1 1 1"}, {"SCHED", "dualpipev"}};
  const Explanation told = explain_text(script, variables);
  EXPECT_THAT(told.contradictions, IsEmpty());
  EXPECT_EQ(obstacles(told), "");
  EXPECT_EQ(told.num_ranks, 16);
  EXPECT_THAT(
      told.command,
      AllOf(Contains("--virtual-hetero-pipeline-stages"), Not(Contains("--hetero-pipeline-stages")),
            Not(Contains("--force-drop-and-padding")), Not(Contains("--moe-layer-recompute"))));
  EXPECT_THAT(told.open_words, IsEmpty());
  for (const ExplainedOption& option : told.same) EXPECT_EQ(option.condition, "") << option.text;
  const Explanation open = explain_text(script);
  EXPECT_THAT(open.open, ElementsAre("NNODES", "PP"));
  EXPECT_EQ(open.num_ranks, std::nullopt);
  EXPECT_THAT(open.contradictions, IsEmpty());
  EXPECT_THAT(open.open_words, Contains("$NODE_RANK")) << "each node's own";
}

struct Script {
  const char* name;
  int64_t num_ranks;
  std::vector<std::string> missing;
};

// Scripts in the manner of Megatron's own: every option of theirs is known.
TEST(Explain, MegatronsScripts) {
  const std::vector<std::string> arguments{"runs/a", "tokenizer", "data", "merges", "data"};
  const Script scripts[] = {
      {"mixtral_8x7b", 32, {}},
      {"deepseek_v3", 1024, {}},
      {"llama3_8b", 8, {}},
      {"qwen3_30b", 16, {}},
      {"gpt3_175b",
       128,
       {"--rampup-batch-size", "--fp16", "--vocab-file", "--merge-file", "--tokenizer-type",
        "without --normalization", "without --swiglu", "without --disable-bias-linear",
        "without --position-embedding-type", "without --attention-dropout",
        "without --hidden-dropout"}},
      {"small_gpt", 4, {"--mtp-num-layers"}},
  };
  for (const auto& [name, num_ranks, missing] : scripts) {
    const Explanation explanation =
        explain_file(concat("megatron_scripts/", name, ".sh"), {{"PWD", "/here"}},
                     name == std::string("llama3_8b") ? std::vector<std::string>() : arguments);
    EXPECT_THAT(names(explanation.unknown), IsEmpty()) << name;
    EXPECT_EQ(explanation.num_ranks, num_ranks) << name;
    EXPECT_EQ(names(explanation.missing), missing) << name;
    if (name == std::string("gpt3_175b")) {
      EXPECT_THAT(explanation.contradictions,
                  ElementsAre(HasSubstr("pretrain needs vocab-size, tokenizer-model")));
      continue;
    }
    EXPECT_THAT(explanation.contradictions, IsEmpty()) << name;
    EXPECT_TRUE(explanation.run) << name;
    EXPECT_NO_THROW(validate(options_of(explanation), Command::kPretrain, num_ranks)) << name;
  }
}

TEST(Explain, WhatMegatronsScriptsMeanHere) {
  const RunSpec mixtral =
      *explain_file("megatron_scripts/mixtral_8x7b.sh", {}, {"runs/m", "tokenizer", "data"}).run;
  EXPECT_EQ(mixtral.model.moe->expert_intermediate_size, 14336);
  EXPECT_TRUE(mixtral.model.moe->norm_topk_prob);
  EXPECT_EQ(mixtral.model.rms_norm_eps, 1e-5);
  const RunSpec deepseek = *explain_file("megatron_scripts/deepseek_v3.sh").run;
  EXPECT_EQ(deepseek.model.family, ModelConfig::Family::kDeepseekV3);
  EXPECT_EQ(deepseek.model.moe->first_k_dense_replace, 3);
  EXPECT_EQ(deepseek.model.moe->num_shared_experts, 1);
  EXPECT_TRUE(deepseek.model.moe->expert_bias);
  EXPECT_EQ(deepseek.model.rope.original_max_position_embeddings, 4096);
  EXPECT_EQ(deepseek.pipeline.stages.size(), 32u);
  EXPECT_EQ(deepseek.pipeline.stages.front().count, 3);
  EXPECT_EQ(deepseek.pipeline.stages.back().count, 0);
  EXPECT_EQ(deepseek.recompute.kind, Recompute::kExpertProduct);
  EXPECT_EQ(deepseek.steps.train, 585937500 / 8192);
  const RunSpec llama = *explain_file("megatron_scripts/llama3_8b.sh", {{"PWD", "/here"}}).run;
  EXPECT_TRUE(llama.data.mock);
  EXPECT_EQ(llama.model.vocab_size, 128256);
  EXPECT_EQ(llama.lr.warmup_iters, 3906252 / 128.0);
  const Explanation in_8_bits =
      explain_file("megatron_scripts/llama3_8b.sh", {{"PWD", "/here"}, {"PRECISION", "fp8"}});
  EXPECT_THAT(names(in_8_bits.missing), ElementsAre("without --fp8-recipe"));
}

}  // namespace
}  // namespace moetron
