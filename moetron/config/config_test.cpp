#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>
#include <regex>
#include <set>
#include <sstream>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/file.h"
#include "moetron/config/megatron_page.h"
#include "moetron/config/option_table.h"
#include "moetron/config/option_value.h"
#include "moetron/config/options_page.h"
#include "moetron/config/suggestion.h"
#include "moetron/config/test_args.h"
#include "moetron/config/toml_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OptionTable, IsConsistent) {
  std::set<std::string> names;
  std::set<std::string> names_of_commands;  // "convert --dtype": of one option each
  const auto is_new = [&](const OptionSpec& spec, const std::string& name) {
    bool all_new = !spec.commands.empty() || !names.contains(name);
    for (const Command command : spec.commands)
      all_new &= names_of_commands.insert(command_name(command) + " --" + name).second;
    names.insert(name);
    return all_new;
  };
  std::set<std::string> working_flags;
  for (const OptionSpec& spec : option_table().options()) {
    if (spec.kind == ValueKind::kFlag && spec.standing == Standing::kWorks)
      working_flags.insert(spec.name);
    EXPECT_TRUE(is_new(spec, spec.name)) << spec.name;
    for (const Spelling& spelling : spec.spellings)
      EXPECT_TRUE(is_new(spec, spelling.name)) << spelling.name;
    EXPECT_EQ(spec.meaning.empty() ? ' ' : spec.meaning.back(), '.') << spec.name;
    const bool chooses = spec.kind == ValueKind::kChoice || spec.kind == ValueKind::kPairs;
    EXPECT_EQ(spec.choices.empty(), !chooses) << spec.name;
    EXPECT_EQ(spec.why.empty(), spec.standing == Standing::kWorks && spec.only_value.empty())
        << spec.name;
    for (const Choice& choice : spec.choices)
      EXPECT_EQ(choice.why.empty(), choice.standing == Standing::kWorks) << spec.name;
    EXPECT_TRUE(spec.required_by.empty() || spec.field) << spec.name;
    EXPECT_TRUE(!spec.commands.empty() || spec.standing == Standing::kNotYet) << spec.name;
  }
  // A spelling like no-x must not hide a flag x that works.
  for (const std::string& name : working_flags) EXPECT_FALSE(names.count("no-" + name)) << name;
}

// What works means an enumerator of the field's own type, and only names of one meaning are further
// names of each other.
TEST(OptionTable, EveryChoiceSaysWhatItMeans) {
  for (const OptionSpec& spec : option_table().options()) {
    Options probe;
    const OptionField field = spec.field ? spec.field(probe) : OptionField();
    const auto* of_enum = std::get_if<EnumField>(&field);
    for (const Choice& choice : spec.choices) {
      const bool has_meaning = of_enum != nullptr && choice.standing == Standing::kWorks;
      EXPECT_EQ(choice.meaning != Enumerator(), has_meaning) << spec.name << " " << choice.name;
      if (!has_meaning) continue;
      EXPECT_TRUE(choice.meaning.type == of_enum->type) << spec.name << " " << choice.name;
      apply_setting({&spec, {{ScalarType::kText, choice.name}}, spec.name}, probe);
      EXPECT_TRUE(of_enum->get(of_enum->value) == choice.meaning) << spec.name;
      const Json dumped = option_value(spec, probe);
      const bool is_further = choice.name == "flex" || choice.name == "adamw";
      EXPECT_EQ(dumped == choice.name, !is_further) << spec.name << " " << choice.name;
    }
  }
}

// The order of the choices, and so that of the enumerators, means nothing.
TEST(OptionTable, ChoicesInAnyOrderMeanTheSame) {
  OptionSpec reversed = *option_table().find("scheduler")->spec;
  std::reverse(reversed.choices.begin(), reversed.choices.end());
  Options options;
  EXPECT_EQ(option_value(reversed, options), "1f1b");
  apply_setting({&reversed, {{ScalarType::kText, "zb-h1"}}, "scheduler"}, options);
  EXPECT_EQ(options.parallel.scheduler, ScheduleKind::kZbH1);
  EXPECT_EQ(option_value(reversed, options), "zb-h1");
}

TEST(OptionTable, ChoicesMeanTheirEnumerators) {
  const Options options =
      parse(pretrain("--model-family llama --moe-router-load-balancing-type none "
                     "--lr-decay-style cosine --tokenizer bytes --dtype fp32 "
                     "--patch-tokenizer-type Qwen3Tokenizer --moe-router-score-function sigmoid "
                     "--moe-router-deepseekv3"))
          .options;
  EXPECT_EQ(options.model.model_family, ModelFamily::kLlama);
  EXPECT_EQ(options.moe.moe_router_load_balancing_type, LoadBalancing::kNone);
  EXPECT_EQ(options.optimizer.lr_decay_style, LrDecayStyle::kCosine);
  EXPECT_EQ(options.tokenizer.tokenizer, TokenizerKind::kBytes);
  EXPECT_EQ(options.training.dtype, Dtype::kFp32);
  EXPECT_EQ(options.tokenizer.patch_tokenizer_type, PatchTokenizer::kQwen3);
  EXPECT_EQ(options.moe.moe_router_score_function, RouterScoreFunction::kSigmoid);
}

TEST(OptionTable, ChoicesOfTheAxesMeanTheirEnumerators) {
  using Kind = TokenDispatcher;
  const std::pair<const char*, Kind> kinds[] = {
      {"allgather", Kind::kAllGather},
      {"allgather_fused", Kind::kAllGatherFused},
      {"alltoall", Kind::kAllToAll},
      {"deepep", Kind::kDeepep},
      {"flex", Kind::kDeepep},
      {"overlap_allgather_fused", Kind::kOverlapAllGatherFused},
      {"overlap_alltoall", Kind::kOverlapAllToAll},
      {"overlap_deepep", Kind::kOverlapDeepep}};
  for (const auto& [name, kind] : kinds) {
    const std::string words = std::string("--expert-model-parallel-size 2 ") +
                              "--moe-token-dispatcher-type-patch " + name;
    EXPECT_EQ(parse(pretrain(words)).options.moe.moe_token_dispatcher_type, kind) << name;
  }
  EXPECT_EQ(parse(pretrain("--expert-model-parallel-size 2 --moe-token-dispatcher-type flex "
                           "--moe-enable-deepep"))
                .options.moe.moe_token_dispatcher_type,
            Kind::kDeepep);
  EXPECT_EQ(Options{}.moe.moe_token_dispatcher_type, Kind::kAllGatherFused);
  const Options options =
      parse(pretrain("--device cuda --comm-backend nccl --recompute-granularity full "
                     "--recompute-method uniform --force-drop-and-padding "
                     "--moe-token-drop-policy position"))
          .options;
  EXPECT_EQ(options.runtime.device, DeviceKind::kCuda);
  EXPECT_EQ(options.runtime.distributed_backend, DistributedBackend::kNccl);
  EXPECT_EQ(options.memory.recompute_granularity, RecomputeGranularity::kFull);
  EXPECT_EQ(options.memory.recompute_method, RecomputeMethod::kUniform);
  EXPECT_EQ(options.moe.moe_token_drop_policy, TokenDropPolicy::kPosition);
  EXPECT_EQ(parse(pretrain("--distributed-backend gloo")).options.runtime.distributed_backend,
            DistributedBackend::kGloo);
  EXPECT_EQ(parse("generate --load run --prompt x --device cpu").options.runtime.device,
            DeviceKind::kCpu);
}

TEST(OptionTable, ChoicesOfTheSchedulerMeanTheirEnumerators) {
  using Kind = ScheduleKind;
  const std::pair<const char*, Kind> kinds[] = {
      {"1f1b", Kind::k1F1B},           {"interleaved", Kind::kInterleaved},
      {"zb-h1", Kind::kZbH1},          {"zb-v", Kind::kZbV},
      {"dualpipev", Kind::kDualPipeV}, {"dualpipev+", Kind::kDualPipeVPlus}};
  for (const auto& [name, kind] : kinds)
    EXPECT_EQ(parse(pretrain(std::string("--scheduler ") + name)).options.parallel.scheduler, kind)
        << name;
}

TEST(OptionTable, ChoicesOfTheFormatMeanTheirEnumerators) {
  const std::pair<const char*, TextFormat> formats[] = {{"auto", TextFormat::kAuto},
                                                        {"jsonl", TextFormat::kJsonl},
                                                        {"json", TextFormat::kJson},
                                                        {"text", TextFormat::kText}};
  for (const auto& [name, format] : formats)
    EXPECT_EQ(
        parse(std::string("preprocess --input a --output-prefix b --tokenizer bytes --format ") +
              name)
            .options.preprocess.format,
        format)
        << name;
}

TEST(OptionTable, ChoicesOfTheSimulationMeanTheirEnumerators) {
  using Scheme = DispatchScheme;
  const std::pair<const char*, Scheme> schemes[] = {{"expert", Scheme::kPerExpert},
                                                    {"rank", Scheme::kPerRank},
                                                    {"node", Scheme::kPerNode},
                                                    {"allgather", Scheme::kAllGather}};
  for (const auto& [name, scheme] : schemes)
    EXPECT_EQ(parse(std::string("simulate --cost model --dispatch-scheme ") + name)
                  .options.simulate.dispatch_scheme,
              scheme);
}

TEST(Suggestion, IsNearInSpellingMeaningOrWordsOrAbsent) {
  const std::vector<std::string> commands{"plan", "plot", "sft"};
  EXPECT_THAT(near_names("plto", commands), ElementsAre("plot"));  // two letters swapped
  EXPECT_THAT(near_names("plots", commands), ElementsAre("plot"));
  EXPECT_THAT(near_names("plxt", commands), ElementsAre("plot"));
  EXPECT_THAT(near_names("plxx", commands), ElementsAre());
  EXPECT_EQ(suggestion("a-b", {"a-x-b", "b-y-a", "a-b-x-y"}, "--"),
            "; near are --a-x-b and --b-y-a");
  const auto of_option = [](const char* name) { return option_table().suggestion(name, "--"); };
  EXPECT_EQ(of_option("train_iter"), "; the nearest known is --train-iters");
  EXPECT_EQ(of_option("interpolation"),
            "; the nearest known is --rotary-seq-len-interpolation-factor");
  EXPECT_EQ(of_option("learning_rate"), "; the nearest known is --lr");
  EXPECT_EQ(of_option("batch-size"), "; near are --micro-batch-size and --global-batch-size");
  EXPECT_EQ(of_option("expert-parallel-size"),
            "; near are --expert-tensor-parallel-size, --expert-model-parallel-size and "
            "--target-expert-parallel-size");
  EXPECT_EQ(of_option("frobnicate"), "");
  EXPECT_EQ(of_option(""), "");
}

// What is called otherwise elsewhere leads to an option that is there.
TEST(Suggestion, OfOtherProgramsNamesAreOptions) {
  for (const char* name : {"block-size",
                           "cutoff-len",
                           "dataset",
                           "ep",
                           "epochs",
                           "etp",
                           "gradient-checkpointing",
                           "hidden-dim",
                           "intermediate-size",
                           "logging-steps",
                           "lr-scheduler-type",
                           "max-grad-norm",
                           "max-length",
                           "max-steps",
                           "model",
                           "num-experts-per-tok",
                           "num-key-value-heads",
                           "out",
                           "output-dir",
                           "pp",
                           "resume",
                           "save-steps",
                           "steps",
                           "threads",
                           "tp",
                           "warmup-steps"}) {
    const std::vector<std::string> near = near_names(name, {});
    ASSERT_EQ(near.size(), 1u) << name;
    EXPECT_TRUE(option_table().find(near[0])) << name << " -> " << near[0];
  }
}

// MOETRON_WRITE_DOCS=1 writes the page instead of comparing it.
TEST(OptionsPage, IsUpToDate) {
  if (std::getenv("MOETRON_WRITE_DOCS")) write_file("docs/options.md", options_page());
  EXPECT_EQ(read_file("docs/options.md"), options_page())
      << "write it anew: MOETRON_WRITE_DOCS=1 config_test";
}

// The part of docs/from-megatron.md that is written by hand stays.
TEST(MegatronPage, IsUpToDate) {
  const std::string text = read_file("docs/from-megatron.md");
  const size_t mark = text.find(kMegatronPageMark);
  ASSERT_NE(mark, std::string::npos) << kMegatronPageMark;
  const std::string wanted = text.substr(0, mark) + megatron_page();
  if (std::getenv("MOETRON_WRITE_DOCS")) write_file("docs/from-megatron.md", wanted);
  EXPECT_EQ(read_file("docs/from-megatron.md"), wanted)
      << "write it anew: MOETRON_WRITE_DOCS=1 config_test";
}

// The standing of an option as the table of docs/parallelism.md writes it.
std::string short_standing(const OptionSpec& spec) {
  if (!spec.only_value.empty()) return "only " + spec.only_value;
  if (spec.standing != Standing::kWorks)
    return spec.standing == Standing::kNotYet ? "not yet" : "no effect here";
  std::string usable;
  bool all = true;
  for (const Choice& choice : spec.choices) {
    all &= choice.standing == Standing::kWorks;
    if (choice.standing == Standing::kWorks) usable += (usable.empty() ? "" : ", ") + choice.name;
  }
  return all ? "works" : "works: " + usable;
}

TEST(ParallelismPage, TellsTheStandingOfEveryOption) {
  const std::string text = read_file("docs/parallelism.md");
  const size_t begin = text.find("## Options");
  ASSERT_NE(begin, std::string::npos);
  std::istringstream page(text.substr(begin));
  const std::regex row("\\| `--([a-z0-9-]+)` \\| [^|]+ \\| ([^|]+) \\|");
  std::set<std::string> names;
  std::smatch cells;
  for (std::string line; std::getline(page, line);) {
    if (!std::regex_match(line, cells, row)) continue;
    const auto found = option_table().find(cells[1].str());
    ASSERT_TRUE(found) << line;
    EXPECT_EQ(cells[2], short_standing(*found->spec)) << line;
    names.insert(found->spec->name);
  }
  for (const OptionSpec& spec : option_table().options()) {
    const bool belongs = spec.field && (spec.group == "parallel" || spec.group == "memory");
    EXPECT_TRUE(!belongs || names.count(spec.name)) << spec.name << " is missing";
  }
}

TEST(OptionsJson, TheDumpKeepsEveryValue) {
  const Options options =
      parse(pretrain("--num-layers 4 --qk-layernorm False --lr 0.1 --data-path 1 a 2 b --bf16 "
                     "--model-family deepseek --seed 9223372036854775807 --adam-eps 1e-300 "
                     "--hetero-pipeline-stages 3 1"))
          .options;
  const Json json = options_to_json(options);
  EXPECT_EQ(json["optimizer"]["lr"], 0.1);
  EXPECT_EQ(json["model"]["qk-layernorm"], false);
  EXPECT_EQ(json["model"]["hidden-size"], nullptr);
  EXPECT_EQ(json["training"]["dtype"], "bf16");
  EXPECT_EQ(json["model"]["model-family"], "deepseek");
  EXPECT_EQ(json["parallel"]["hetero-pipeline-stages"], Json({3, 1}));
  // As text and back, as trainer.json holds it.
  const Json back = parse_json(json.dump(), "dump");
  EXPECT_EQ(back, json);
  EXPECT_EQ(back["optimizer"]["adam-eps"].get<double>(), 1e-300);
  EXPECT_EQ(back["runtime"]["seed"].get<int64_t>(), 9223372036854775807);
}

class TomlTest : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove(path_); }

  std::string with(const std::string& toml, const std::string& command_line) {
    write_file(path_, toml);
    return command_line + " --config " + path_.string();
  }
  std::string error_of_toml(const std::string& toml) {
    std::string text = error_of(with(toml, pretrain()));
    const std::string name = path_.filename().string() + ": ";
    for (size_t at; (at = text.find(name)) != std::string::npos;) text.erase(at, name.size());
    return text;
  }

  const fs::path path_ =
      fs::temp_directory_path() / ("moetron_config_" + std::to_string(::getpid()) + ".toml");
};

TEST_F(TomlTest, GivesOptionsFlatAndGrouped) {
  const std::string toml = R"(
seed = 7
train_iters = 20
bf16 = true
split = "98,2,0"
[optimizer]
optimizer = "adam"
lr = 3e-4
min-lr = 0
[data]
data_path = [0.5, "a", 1, "b"]
[kernels]
module-impl = {core_attn = "local"}
[training]
seq-length = 128
micro-batch-size = 1
global-batch-size = 2
[preprocess]
workers = 4
)";
  const ParsedCommandLine parsed = parse(with(toml, "pretrain --lr 1e-5"));
  const Options& options = parsed.options;
  EXPECT_EQ(options.optimizer.lr, 1e-5) << "the command line wins";
  EXPECT_EQ(options.runtime.seed, 7);
  EXPECT_EQ(options.training.train_iters, 20);
  EXPECT_EQ(options.training.dtype, Dtype::kBf16);
  EXPECT_EQ(options.training.seq_length, 128);
  EXPECT_EQ(options.data.split, (std::vector<double>{98, 2, 0}));
  EXPECT_EQ(options.data.data_path.back(), "b");
  EXPECT_EQ(options.preprocess.workers, 1) << "of another command";
  ASSERT_EQ(parsed.notices.size(), 1u);
  EXPECT_THAT(parsed.notices[0], HasSubstr(".toml: module-impl has no effect here"));
}

TEST_F(TomlTest, WhatIsWrittenIsReadBack) {
  const Options options =
      parse(pretrain("--lr 2.5e-4 --split 90 10 0 --mlp-recompute --scheduler dualpipev "
                     "--pipeline-model-parallel-size 2 --save a\"b --num-experts 8 "
                     "--virtual-hetero-pipeline-stages 1 2 2 1 --transformer-impl local "
                     "--module-impl {core_attn:local} --untie-embeddings-and-output-weights"))
          .options;
  const std::string text = toml_of(options, Command::kPretrain);
  EXPECT_THAT(text, HasSubstr("\n[optimizer]\n"));
  EXPECT_THAT(text, Not(HasSubstr("adam-beta1")));  // as it is by default
  EXPECT_EQ(options_to_json(parse(with(text, "pretrain")).options), options_to_json(options));
}

TEST_F(TomlTest, MistakesNameFileKeyAndValue) {
  EXPECT_EQ(error_of_toml("sede = 1"), "unknown option sede; the nearest known is seed");
  const std::string long_key(2000000, 'k');  // in no time
  EXPECT_THAT(error_of_toml(long_key + " = 1"),
              HasSubstr("unknown option " + long_key.substr(0, 100) + "..."));
  std::string parts = "a";
  for (int i = 0; i < 100000; ++i) parts += ".a";
  for (const std::string& deep : {"[" + parts + "]", parts + " = 1", "x = {" + parts + " = 1}"})
    EXPECT_THAT(error_of_toml("seed = 1\n" + deep),
                HasSubstr("line 2: the key has more than 32 parts"));
  EXPECT_THAT(error_of_toml("save = \"" + parts + "\" # " + parts + "\nsede = 1"),
              HasSubstr("unknown option sede"));
  EXPECT_EQ(error_of_toml("seed = \"1\""), "seed expects a whole number, not \"1\"");
  EXPECT_EQ(error_of_toml("seed = 1.0"), "seed expects a whole number, not \"1\"");
  EXPECT_EQ(error_of_toml("clip-grad = nan"), "clip-grad must be a finite number, not nan");
  EXPECT_EQ(error_of_toml("clip-grad = true"), "clip-grad expects a number, not \"true\"");
  EXPECT_EQ(error_of_toml("save = 3"), "save expects a text, not \"3\"");
  EXPECT_EQ(error_of_toml("qk-layernorm = \"true\""),
            "qk-layernorm expects true or false, not \"true\"");
  EXPECT_EQ(error_of_toml("seed = [1, 2]"), "seed takes one value, not 2");
  EXPECT_EQ(error_of_toml("split = []"), "split needs a value");
  EXPECT_EQ(error_of_toml("split = [[1]]"), "split must be a value or a list of values");
  EXPECT_EQ(error_of_toml("seed = 1979-05-27"), "seed must be a value or a list of values");
  EXPECT_EQ(error_of_toml("[model]\nlr = 1"), "lr belongs under [optimizer], not [model]");
  EXPECT_EQ(error_of_toml("clip-grad = 1\nclip_grad = 2"),
            "clip_grad sets the same option as clip-grad");
  EXPECT_EQ(error_of_toml("bf16 = false"), "bf16 can only be true; see dtype");
  EXPECT_EQ(error_of_toml("config = \"x\""), "config cannot name another file");
  EXPECT_EQ(error_of_toml("mlp-recompute = true"), "");
  EXPECT_EQ(error_of_toml("use-torch-fsdp2 = true"),
            "use-torch-fsdp2 is not there yet: optimizer states and weights divided among "
            "data-parallel ranks (FSDP)");
  EXPECT_EQ(error_of_toml("[optimiser]\nlr = 1"),
            "unknown option optimiser; the nearest known is optimizer");
}

TEST_F(TomlTest, HostileFilesAreRefused) {
  const std::string good = "[optimizer]\nlr = 1e-4\n[data]\nsplit = [99, 1, 0]\n";
  EXPECT_EQ(error_of(with(good, pretrain())), "");
  int refused = 0;
  for (size_t size = 0; size < good.size(); ++size)  // never anything but a ConfigError
    refused += !error_of(with(good.substr(0, size), pretrain())).empty();
  EXPECT_GT(refused, 15);
  EXPECT_THAT(error_of_toml("seed = 1\nseed = 2"), HasSubstr("is not TOML: line 2"));
  EXPECT_THAT(error_of_toml("seed = 99999999999999999999"), HasSubstr("is not TOML: line 1"));
  EXPECT_THAT(error_of_toml(std::string("seed = \0", 8)), HasSubstr("is not TOML"));
  EXPECT_THAT(error_of_toml("split = " + std::string(100000, '[')), HasSubstr("is not TOML"));
  EXPECT_THAT(error_of_toml("save = \"\xff\""), HasSubstr("is not TOML"));
  EXPECT_THROW(parse(pretrain("--config /no/such/file.toml")), InputError);
}

}  // namespace
}  // namespace moetron
