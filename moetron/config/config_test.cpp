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
#include "moetron/config/option_value.h"
#include "moetron/config/options_page.h"
#include "moetron/config/test_args.h"
#include "moetron/config/validate.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(OptionTable, IsConsistent) {
  std::set<std::string> names;
  for (const OptionSpec& spec : option_table().options()) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    for (const Spelling& spelling : spec.spellings)
      EXPECT_TRUE(names.insert(spelling.name).second) << spelling.name;
    EXPECT_EQ(spec.meaning.empty() ? ' ' : spec.meaning.back(), '.') << spec.name;
    EXPECT_EQ(spec.choices.empty(), spec.kind != ValueKind::kChoice) << spec.name;
    EXPECT_EQ(spec.why.empty(), spec.standing == Standing::kWorks && spec.only_value.empty())
        << spec.name;
    for (const Choice& choice : spec.choices)
      EXPECT_EQ(choice.why.empty(), choice.standing == Standing::kWorks) << spec.name;
    EXPECT_TRUE(!spec.is_required || spec.field) << spec.name;
    EXPECT_TRUE(!spec.commands.empty() || spec.standing == Standing::kNotYet) << spec.name;
  }
  // A spelling like no-x must not hide a flag x that works.
  for (const std::string& name : names) EXPECT_FALSE(names.count("no-" + name)) << name;
}

// Every enumerator has its choice, in order: a choice too few would make the dump fail.
TEST(OptionTable, ChoicesFollowTheEnumerators) {
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

TEST(OptionTable, ChoicesOfTheAxesFollowTheEnumerators) {
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

TEST(OptionTable, NearestNameIsTheLeastEdited) {
  EXPECT_EQ(nearest_of("plto", {"plan", "plot", "sft"}), "plot");  // two letters swapped
  EXPECT_EQ(nearest_of("plxx", {"plan", "plot", "sft"}), "plan");  // equal: the first
  EXPECT_EQ(nearest_of("plots", {"plan", "plot", "sft"}), "plot");
  EXPECT_EQ(option_table().nearest_name("train_iter"), "train-iters");
}

// MOETRON_WRITE_DOCS=1 writes the page instead of comparing it.
TEST(OptionsPage, IsUpToDate) {
  if (std::getenv("MOETRON_WRITE_DOCS")) write_file("docs/options.md", options_page());
  EXPECT_EQ(read_file("docs/options.md"), options_page())
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

TEST(OptionsJson, RoundTripKeepsEveryValue) {
  Options options =
      parse(pretrain("--num-layers 4 --qk-layernorm False --lr 0.1 --data-path 1 a 2 b --bf16 "
                     "--model-family deepseek --seed 9223372036854775807 --adam-eps 1e-300"))
          .options;
  const Json json = options_to_json(options);
  EXPECT_EQ(json["optimizer"]["lr"], 0.1);
  EXPECT_EQ(json["model"]["qk-layernorm"], false);
  EXPECT_EQ(json["model"]["hidden-size"], nullptr);
  EXPECT_EQ(json["training"]["dtype"], "bf16");
  const Options back = options_from_json(parse_json(json.dump(), "dump"));
  EXPECT_EQ(options_to_json(back), json);
  EXPECT_EQ(back.model.model_family, ModelFamily::kDeepseek);
  EXPECT_EQ(back.model.hidden_size, std::nullopt);
  EXPECT_EQ(back.optimizer.adam_eps, 1e-300);
  EXPECT_EQ(back.runtime.seed, 9223372036854775807);
  // The defaults hold themselves too: every field has a type that survives.
  EXPECT_EQ(options_to_json(options_from_json(options_to_json(Options{}))),
            options_to_json(Options{}));
}

TEST(OptionsJson, RefusesWhatIsNoOption) {
  EXPECT_THROW(options_from_json(Json::array()), ConfigError);
  EXPECT_THROW(options_from_json(Json::parse(R"({"optimiser": {}})")), ConfigError);
  EXPECT_THROW(options_from_json(Json::parse(R"({"optimizer": {"lrr": 1}})")), ConfigError);
  EXPECT_THROW(options_from_json(Json::parse(R"({"optimizer": {"lr": "1"}})")), ConfigError);
  EXPECT_THROW(options_from_json(Json::parse(R"({"optimizer": {"lr": {}}})")), ConfigError);
  EXPECT_THROW(options_from_json(Json::parse(R"({"model": {"lr": 1}})")), ConfigError);
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

TEST_F(TomlTest, MistakesNameFileKeyAndValue) {
  EXPECT_EQ(error_of_toml("sede = 1"), "unknown option sede; the nearest known is seed");
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
  EXPECT_EQ(error_of_toml("delay-wgrad-compute = true"),
            "delay-wgrad-compute is not there yet: delayed weight gradients");
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

std::string invalid(const std::string& command_line, int64_t world_size = 1) {
  const ParsedCommandLine parsed = parse(command_line);
  try {
    validate(parsed.options, parsed.command, world_size);
    return "";
  } catch (const ConfigError& error) {
    return error.what();
  }
}

TEST(Validate, NamesBothOptionsAndBothValues) {
  EXPECT_EQ(invalid(pretrain(), 4), "");
  EXPECT_EQ(invalid(pretrain(), 3),
            "global-batch-size (8) must be a multiple of micro-batch-size (2) times the "
            "data-parallel ranks (3)");
  EXPECT_EQ(invalid(pretrain("--min-lr 1")), "min-lr (1) must be at most lr (0.001)");
  EXPECT_EQ(invalid(pretrain("--lr-warmup-iters 11")),
            "lr-warmup-iters (11) must be at most train-iters (10)");
  EXPECT_EQ(invalid(pretrain("--lr-warmup-iters 10")), "");
  EXPECT_EQ(invalid(pretrain("--lr-decay-iters 5 --lr-warmup-iters 6")),
            "lr-warmup-iters (6) must be at most lr-decay-iters (5)");
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

// The experts of a published model on many ranks, without naming a family's own numbers.
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
}

TEST(Validate, TellsTheCapacity) {
  const auto moe = [](const std::string& words) { return parse(pretrain(words)).options.moe; };
  EXPECT_EQ(capacity_factor(moe("")), std::nullopt);
  EXPECT_FALSE(pads_to_capacity(moe("--moe-expert-capacity-factor 1.5")));
  EXPECT_EQ(capacity_factor(moe("--moe-expert-capacity-factor 1.5")), 1.5);
  EXPECT_EQ(capacity_factor(moe("--force-drop-and-padding")), 1.0);
  EXPECT_TRUE(pads_to_capacity(moe("--force-drop-and-padding")));
  EXPECT_EQ(capacity_factor(moe("--force-drop-and-padding --moe-expert-capacity-factor 2")), 2.0);
  EXPECT_EQ(error_of(pretrain("--moe-expert-capacity-factor 0")),
            "--moe-expert-capacity-factor must be above 0, not 0");
}

TEST(Validate, OtherCommandsNeedTheirInputs) {
  EXPECT_EQ(invalid("generate --load run --prompt x"), "");
  EXPECT_EQ(invalid("generate --prompt x"), "generate needs load");
  EXPECT_EQ(invalid("generate --load run"), "generate needs either prompt or prompt-file");
  EXPECT_EQ(invalid("preprocess --input a --output-prefix b"),
            "preprocess needs tokenizer-model, or tokenizer bytes");
  EXPECT_EQ(invalid("preprocess --input a --output-prefix b --tokenizer bytes"), "");
}

}  // namespace
}  // namespace moetron
