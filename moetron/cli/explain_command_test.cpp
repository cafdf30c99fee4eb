// moetron explain: what it prints.
#include <cstdlib>
#include <filesystem>
#include <gmock/gmock.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/cli/commands.h"

namespace moetron {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

struct Explained {
  std::string out;
  std::string error;  // its last sentence; empty: none
};

Explained explained(std::vector<std::string> words) {
  words.insert(words.begin(), {"moetron", "explain"});
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  testing::internal::CaptureStdout();
  Explained outcome;
  try {
    EXPECT_EQ(run_explain(parse_command_line(static_cast<int>(arguments.size()), arguments.data())),
              kExitDone);
  } catch (const Error& error) {
    outcome.error = error.what();
    EXPECT_EQ(error.exit_code(),
              dynamic_cast<const InputError*>(&error) ? kExitCorruptInput : kExitConfig);
  }
  outcome.out = testing::internal::GetCapturedStdout();
  return outcome;
}

const std::vector<std::string> kMixtral{"tests/megatron_scripts/mixtral_8x7b.sh", "runs/m", "tok",
                                        "data"};

TEST(ExplainCommand, PrintsGroupsLayoutAndOurCommand) {
  const Explained outcome = explained(kMixtral);
  EXPECT_EQ(outcome.error, "");
  EXPECT_THAT(
      outcome.out,
      AllOf(HasSubstr("pretrain_gpt.py, 32 ranks\n\nSame meaning ("),
            HasSubstr("\nNo effect here ("), HasSubstr("\nAnother effect here ("),
            HasSubstr("  32 ranks: tensor 1, pipeline 4, data 8; experts: tensor 1, "
                      "parallel 8; 32 micro-batches a step\n"),
            HasSubstr("\nOur command\n  torchrun --no-python --nproc_per_node 8 --nnodes 4")));
  std::vector<std::string> on_hardware = kMixtral;
  on_hardware.insert(on_hardware.end(), {"--hardware", "configs/hardware/h100-ib400.toml"});
  EXPECT_THAT(explained(on_hardware).out, HasSubstr(" s a step, "));
}

// As a dry run of our command would.
TEST(ExplainCommand, RefusesWhatCannotStart) {
  const std::string file = testing::TempDir() + "moetron_explain_test.toml";
  std::string hardware = read_file("configs/hardware/h100-ib400.toml");
  const size_t memory = hardware.find("memory = 80e9");
  ASSERT_NE(memory, std::string::npos);
  write_file(file, hardware.replace(memory, 13, "memory = 50e9"));
  std::vector<std::string> words = kMixtral;
  words.insert(words.end(), {"--hardware", file});
  const Explained outcome = explained(words);
  EXPECT_THAT(outcome.out, HasSubstr("GB: too much"));
  EXPECT_THAT(outcome.error, AllOf(HasSubstr(" GB of a GPU's 50.00 GB; it fits with --"),
                                   Not(HasSubstr("stand"))));
  std::filesystem::remove(file);
  std::vector<std::string> in_fp8{"--world-size", "1", "--", "moetron", "pretrain"};
  for (const char* word : {"--num-layers",
                           "2",
                           "--hidden-size",
                           "128",
                           "--num-attention-heads",
                           "2",
                           "--ffn-hidden-size",
                           "128",
                           "--vocab-size",
                           "1000",
                           "--seq-length",
                           "128",
                           "--micro-batch-size",
                           "1",
                           "--global-batch-size",
                           "1",
                           "--train-iters",
                           "1",
                           "--lr",
                           "1e-4",
                           "--data-path",
                           "d",
                           "--bf16",
                           "--fp8-format",
                           "hybrid"})
    in_fp8.emplace_back(word);
  EXPECT_THAT(explained(in_fp8).out, HasSubstr("fp8-format (hybrid) works on CPUs alone"));
  in_fp8.insert(in_fp8.end(), {"--device", "cpu"});
  EXPECT_EQ(explained(in_fp8).error, "");
}

TEST(ExplainCommand, PrintsTheSameAsAnObject) {
  std::vector<std::string> words = kMixtral;
  words.emplace_back("--json");
  const Json json = parse_json(explained(words).out, "output");
  EXPECT_EQ(json["ranks"], 32);
  EXPECT_EQ(json["missing"].size(), 0u);
  EXPECT_EQ(json["command"][0], "torchrun");
}

TEST(ExplainCommand, SaysWhatNobodyKnows) {
  const std::string file = testing::TempDir() + "moetron_explain_test.sh";
  write_file(file,
             "if [ -f a/file ]; then A=--manual-gc; fi\n"
             "torchrun --nproc_per_node `nvidia-smi -L | wc -l` --nnodes $NNODES pretrain_gpt.py "
             "--data-path '$5' $A $NOTHING\n");
  const Explained outcome = explained({file});
  EXPECT_THAT(outcome.out, HasSubstr("pretrain_gpt.py, the number of ranks is open\n"));
  EXPECT_THAT(outcome.out, HasSubstr("--manual-gc (if [ -f a/file ])"));
  EXPECT_THAT(outcome.out, HasSubstr("behind its name (2)\n  `nvidia-smi -L | wc -l`\n  NNODES\n"));
  EXPECT_THAT(outcome.out, AllOf(HasSubstr("--nproc_per_node \"`nvidia-smi -L | wc -l`\" "),
                                 HasSubstr("--nnodes \"$NNODES\" ")))
      << "the shell fills them in";
  EXPECT_THAT(outcome.out, HasSubstr("--data-path '$5'")) << "but not what was quoted";
  std::filesystem::remove(file);
}

// MOETRON_WRITE_DOCS=1 writes the example of the page instead of comparing it.
TEST(ExplainCommand, ThePageShowsWhatItPrints) {
  const std::string page = read_file("docs/from-megatron.md");
  const std::string fence = "```text\n";
  const size_t begin = page.find(fence) + fence.size();
  const size_t end = page.find("```\n", begin);
  ASSERT_NE(end, std::string::npos);
  const Explained outcome = explained({"tests/megatron_scripts/small_gpt.sh"});
  const std::string wanted = concat(page.substr(0, begin), outcome.out, "moetron: ", outcome.error,
                                    "\n", page.substr(end));
  if (std::getenv("MOETRON_WRITE_DOCS") != nullptr) write_file("docs/from-megatron.md", wanted);
  EXPECT_EQ(read_file("docs/from-megatron.md"), wanted);
}

TEST(ExplainCommand, TakesWordsBehindTwoDashes) {
  const Explained outcome = explained(
      {"--world-size", "4", "--", "pretrain_gpt.py", "--num-layers", "4", "--frob", "--help"});
  EXPECT_THAT(outcome.out, HasSubstr("pretrain_gpt.py, 4 ranks"));
  EXPECT_THAT(outcome.out, HasSubstr("Unknown (2)"));
  EXPECT_THAT(outcome.error, HasSubstr("2 options are unknown"));
  EXPECT_EQ(explained({"x", "--", "y"}).error,
            "explain takes a file (x) or the words behind --, not both");
  EXPECT_EQ(explained({}).error, "explain needs a file, or a command line behind --");
  EXPECT_THAT(explained({"no/such/file"}).error, HasSubstr("no/such/file"));
}

}  // namespace
}  // namespace moetron
