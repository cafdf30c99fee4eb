// moetron plan: what it writes, and what it refuses before it searches.
#include <filesystem>
#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/cli/commands.h"

namespace moetron {
namespace {

using testing::AllOf;
using testing::HasSubstr;

struct PlannedCommand {
  std::string out, error;
};

PlannedCommand plan_command(const std::vector<std::string>& more) {
  std::vector<std::string> words{
      "moetron", "plan", "--config", "configs/tiny_qwen3_moe_cpu_try.toml", "--world-size", "4"};
  words.insert(words.end(), more.begin(), more.end());
  std::vector<const char*> arguments;
  for (const std::string& word : words) arguments.push_back(word.c_str());
  testing::internal::CaptureStdout();
  PlannedCommand outcome;
  try {
    run_plan(parse_command_line(static_cast<int>(arguments.size()), arguments.data()));
  } catch (const Error& error) {
    outcome.error = error.what();
  }
  outcome.out = testing::internal::GetCapturedStdout();
  return outcome;
}

TEST(PlanCommand, ReplacesOnlyWhatItWrote) {
  const std::string folder = testing::TempDir() + "moetron_plan_test";
  std::filesystem::create_directories(folder);
  const std::string own = folder + "/run.toml", other = folder + "/mine.toml";
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(plan_command({"--write", own}).error, "");
    EXPECT_THAT(read_file(own), HasSubstr("# The fastest layout that `moetron plan` found for 4"));
  }
  write_file(other, "mine");
  for (const auto& [file, sentence] : {std::pair(other, "is there, and plan did not write it"),
                                       {folder, "is a folder"},
                                       {folder + "/no/run.toml", "no/run.toml"}}) {
    const PlannedCommand refused = plan_command({"--write", file});
    EXPECT_THAT(refused.error, HasSubstr(sentence));
    EXPECT_EQ(refused.out, "") << "before the search";
  }
  EXPECT_EQ(read_file(other), "mine");
  std::filesystem::remove_all(folder);
}

TEST(PlanCommand, SaysWhatLimitsMean) {
  EXPECT_THAT(plan_command({"--memory-limit", "141"}).error,
              AllOf(HasSubstr("memory-limit (141 GiB) must be at most the 74.51 GiB of H100"),
                    HasSubstr("--hardware")));
  // Of a step that takes no time the rank of the layout and its time stay apart.
  EXPECT_THAT(plan_command({"--memory-limit", "70"}).out, HasSubstr("\n 1 0.000"));
}

}  // namespace
}  // namespace moetron
