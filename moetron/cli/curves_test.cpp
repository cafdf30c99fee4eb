// The commands that read what runs have logged: compare-loss and plot.
#include <cstdlib>
#include <gmock/gmock.h>
#include <unistd.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/cli/commands.h"

namespace moetron {
namespace {

using testing::HasSubstr;

struct Plotted {
  int exit_code = 0;
  std::string out;  // or the error's sentence
};

class Curves : public testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::create_directories(folder_);
    write("a", {{1, "4.0"}, {2, "3.0"}, {3, "2.0"}});
    write("near", {{2, "3.003"}, {3, "2.0"}, {4, "1.0"}});
    write("far", {{1, "4.0"}, {2, "3.3"}, {3, "2.5"}});
    write("later", {{7, "1.0"}});
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::vector<std::pair<int, std::string>>& losses) {
    std::string text;
    for (const auto& [step, loss] : losses)
      text += concat(" [2024-05-01 12:00:00] iteration ", step, "/ 9 | lm loss: ", loss, " |\n");
    write_file(folder_ / name, text);
  }

  // Runs a command line; words with a leading @ are files of the folder.
  Plotted run(std::vector<std::string> words) const {
    words.insert(words.begin(), "moetron");
    std::vector<const char*> arguments;
    for (std::string& word : words) {
      if (word.starts_with('@')) word = (folder_ / word.substr(1)).string();
      arguments.push_back(word.c_str());
    }
    testing::internal::CaptureStdout();
    try {
      const ParsedCommandLine parsed =
          parse_command_line(static_cast<int>(arguments.size()), arguments.data());
      const int exit_code =
          parsed.command == Command::kPlot ? run_plot(parsed) : run_compare_loss(parsed);
      return {exit_code, testing::internal::GetCapturedStdout()};
    } catch (const Error& error) {
      testing::internal::GetCapturedStdout();
      return {error.exit_code(), error.what()};
    }
  }

  std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("moetron_curves_" + std::to_string(::getpid()));
};

bool gnuplot_is_there() {
  return std::system("command -v gnuplot > /dev/null 2>&1") == 0;
}

TEST_F(Curves, ExitCodeTellsWhetherRunsDiffer) {
  const Plotted near = run({"compare-loss", "@a", "@near"});
  EXPECT_EQ(near.exit_code, 0);
  EXPECT_THAT(near.out,
              HasSubstr("loss: 2 steps in common, 2 to 3; 1 only in the first run; 1 only in"));
  EXPECT_EQ(run({"compare-loss", "@a", "@near", "--tolerance", "0.0005"}).exit_code, 1);
  EXPECT_EQ(run({"compare-loss", "@a", "@a", "--tolerance", "0"}).exit_code, 0);
  const Plotted far = run({"compare-loss", "@a", "--metric", "loss", "@far"});
  EXPECT_EQ(far.exit_code, 1);
  EXPECT_THAT(far.out, HasSubstr("past the tolerance (1 %) first at step 2"));
}

TEST_F(Curves, ComparisonAsJson) {
  const Plotted far = run({"compare-loss", "--json", "@a", "@far"});
  EXPECT_EQ(far.exit_code, 1);
  const Json json = parse_json(far.out, "output");
  EXPECT_EQ(json.at("max_difference").at("step"), 3);
  EXPECT_EQ(json.at("max_difference").at("value"), 0.5);
  EXPECT_EQ(json.at("first_step_past_tolerance"), 2);
}

TEST_F(Curves, MistakesAreToldInOneSentence) {
  const auto expect = [&](const std::vector<std::string>& words, int exit_code,
                          const std::string& sentence) {
    const Plotted outcome = run(words);
    EXPECT_EQ(outcome.exit_code, exit_code) << sentence;
    EXPECT_THAT(outcome.out, HasSubstr(sentence));
  };
  expect({"compare-loss", "@a"}, 2, "compare-loss compares 2 runs, not 1");
  expect({"compare-loss", "@a", "@a", "@a"}, 2, "compare-loss compares 2 runs, not 3");
  expect({"compare-loss"}, 2, "compare-loss needs --runs");
  expect({"compare-loss", "@a", "@a", "--tolerance", "-1"}, 2, "--tolerance");
  expect({"compare-loss", "@a", "@a", "--metric", "los"}, 2, "metric (los) is none of loss, ");
  expect({"compare-loss", "@a", "@a", "--metric", "mfu"}, 3, "a holds no mfu");
  expect({"compare-loss", "@a", "@absent"}, 3, "absent");
  expect({"compare-loss", "@a", "@later"}, 3, "later (steps 7 to 7) have no step in common");
  expect({"plot", "--picture", "@a.png"}, 2, "plot needs --runs");
  expect({"plot", "@a", "--picture", "@a.pdf"}, 2, "the name must end in .png or .svg");
  expect({"plot", "@a", "--picture", "@a.png", "--tolerance", "1"}, 2,
         "--tolerance belongs to compare-loss, not to plot");
  expect({"plot", "@a", "@a", "--labels", "one"}, 2, "labels (1) must be as many as runs (2)");
  expect({"plot", "@a", "--bars", "tokens"}, 2, "metric (tokens) is none of loss, ");
  expect({"plot", "@a", "--bars", "mfu", "--picture", "@a.png"}, 3, "a holds no mfu");
  expect({"plot", "@a", "@later", "--metric", "lr", "--picture", "@a.png"}, 3, "a holds no lr");
}

TEST_F(Curves, DrawsRunsAndTheirDifference) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  EXPECT_EQ(run({"compare-loss", "@a", "@far", "--picture", "@both.svg"}).exit_code, 1);
  const std::string both = read_file(folder_ / "both.svg");
  EXPECT_THAT(both, HasSubstr("second - first"));
  EXPECT_THAT(both, HasSubstr((folder_ / "far").string()));
  EXPECT_THAT(both, HasSubstr("relative difference 9.7 % on average, 20 % at most"));
  EXPECT_EQ(run({"plot", "@a", "@far", "@near", "--picture", "@three.svg"}).exit_code, 0);
  const std::string three = read_file(folder_ / "three.svg");
  EXPECT_THAT(three, HasSubstr("loss of 3 runs"));
  for (const char* name : {"a", "far", "near"})
    EXPECT_THAT(three, HasSubstr(">" + (folder_ / name).string() + "<"));
  const Plotted one = run({"plot", "@a", "--picture", "@one.png"});
  EXPECT_EQ(one.exit_code, 0);
  EXPECT_THAT(one.out, HasSubstr("one.png"));
  EXPECT_EQ(read_file(folder_ / "one.png").substr(1, 3), "PNG");
  const Plotted named =
      run({"plot", "@a", "@far", "--picture", "@named.svg", "--labels", "one", "two"});
  EXPECT_EQ(named.exit_code, 0) << named.out;
  EXPECT_THAT(read_file(folder_ / "named.svg"), HasSubstr(">two<"));
  const Plotted beside = run({"plot", "@a", "@near", "--metric", "loss"});
  EXPECT_THAT(beside.out, HasSubstr("wrote " + (folder_ / "loss.png").string()));
  EXPECT_EQ(read_file(folder_ / "loss.png").substr(1, 3), "PNG");
}

TEST_F(Curves, DrawsBarsOfRunsAndOfTables) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  std::filesystem::create_directories(folder_ / "run_b");
  write_file(folder_ / "run_b" / "metrics.jsonl", read_file(folder_ / "a"));
  const Plotted runs = run({"plot", "@a", "@run_b", "--bars", "loss", "--picture", "@bars.svg"});
  EXPECT_EQ(runs.exit_code, 3) << "a log of Megatron is no metrics.jsonl";
  std::filesystem::rename(folder_ / "run_b" / "metrics.jsonl", folder_ / "run_b" / "log");
  const Plotted two = run({"plot", "@run_b/log", "@far", "--bars", "loss", "--picture", "@bars.svg",
                           "--labels", "one", "two"});
  EXPECT_EQ(two.exit_code, 0) << two.out;
  for (const char* text : {">one<", ">two<", ">2.5<", ">2.9<"})
    EXPECT_THAT(read_file(folder_ / "bars.svg"), HasSubstr(text));
  write_file(folder_ / "table.csv", "label,group,value\n1f1b,x,100\ndualpipev,x,150\n");
  EXPECT_EQ(run({"plot", "@table.csv", "--bars", "tokens_per_second"}).exit_code, 0);
  EXPECT_EQ(read_file(folder_ / "tokens_per_second.png").substr(1, 3), "PNG");
  EXPECT_THAT(run({"plot", "@table.csv"}).out,
              HasSubstr("is a table of bars, not a run: add --bars"));
  EXPECT_EQ(run({"plot", "@table.csv", "--bars", "mfu", "--labels", "x"}).exit_code, 2);
}

}  // namespace
}  // namespace moetron
