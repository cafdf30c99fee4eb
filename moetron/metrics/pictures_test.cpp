#include <cmath>
#include <cstdlib>
#include <gmock/gmock.h>
#include <optional>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/json.h"
#include "moetron/metrics/chrome_trace.h"
#include "moetron/metrics/gnuplot.h"
#include "moetron/metrics/metrics_test_data.h"
#include "moetron/metrics/plot.h"

namespace moetron {
namespace {

using testing::HasSubstr;
using testing::Not;

using Pictures = MetricsFolderTest;

std::vector<StepRecord> sample_run(int64_t num_steps) {
  std::vector<StepRecord> records;
  for (int64_t step = 1; step <= num_steps; ++step) {
    StepRecord record = sample_record(step);
    const auto x = static_cast<double>(step);
    record.loss = 2.4 + 8.0 * std::exp(-x / 120.0) + 0.15 * std::sin(x * 12.9898) * std::cos(x * x);
    if (step % 100 == 0) record.validation_loss = 2.5 + 8.0 * std::exp(-x / 120.0);
    records.push_back(record);
  }
  return records;
}

bool gnuplot_is_there() {
  return std::system("command -v gnuplot > /dev/null 2>&1") == 0;
}

TEST_F(Pictures, DrawsPngAndSvg) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  auto records = sample_run(1000);
  records[3].loss = std::nan("");
  plot_losses(records, folder_ / "a b'c.png", "Moe's first_run");
  EXPECT_EQ(read_file(folder_ / "a b'c.png").substr(0, 8), "\x89PNG\r\n\x1a\n");
  plot_losses(sample_run(1), folder_ / "one.svg", "one step & no more");
  const std::string svg = read_file(folder_ / "one.svg");
  EXPECT_NE(svg.find("<svg"), std::string::npos);
  EXPECT_NE(svg.find("one step &amp; no more"), std::string::npos);
  EXPECT_EQ(svg.find("validation"), std::string::npos);
}

TEST_F(Pictures, LogarithmicAxesCountWhatTheyHaveNoPlaceFor) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  const Curve curve{"lr", {{0, 1.0}, {1, 0.0}, {2, 1.1}, {3, -1.0}, {4, 1.2}}};
  testing::internal::CaptureStderr();
  plot_curves({curve}, folder_ / "log.svg", "t", "rate", {.x = true, .y = true});
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("lr: 3 of 5 points are not above 0"));
  const std::string svg = read_file(folder_ / "log.svg");
  EXPECT_THAT(svg, HasSubstr("rate, logarithmic"));
  EXPECT_THAT(svg, HasSubstr("step, logarithmic"));
  testing::internal::CaptureStderr();
  plot_curves({curve}, folder_ / "plain.svg", "t", "rate");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  EXPECT_THROW(plot_curves({{"a", {{1, 0.0}}}}, folder_ / "a.svg", "t", "rate", {.y = true}),
               ConfigError);
}

TEST_F(Pictures, MarksWhereARunWentOn) {
  if (!gnuplot_is_there()) GTEST_SKIP() << "no gnuplot here";
  Curve curve{"loss", {{1, 3.0}, {2, 2.9}, {3, 2.8}, {4, 2.7}}};
  curve.resumes = {{2, 0}, {4, 5}, {9, 7}};
  plot_curves({curve}, folder_ / "marks.svg", "t", "loss");
  const std::string svg = read_file(folder_ / "marks.svg");
  EXPECT_THAT(svg, HasSubstr(">resumed<"));
  EXPECT_THAT(svg, HasSubstr(">resumed, 5 steps again<"));
  EXPECT_THAT(svg, Not(HasSubstr("7 steps again")));  // beyond the curve
}

TEST_F(Pictures, RefusesWhatItCannotDraw) {
  EXPECT_THROW(plot_losses(sample_run(3), folder_ / "loss.pdf", "t"), ConfigError);
  EXPECT_THROW(plot_losses({}, folder_ / "loss.png", "t"), ConfigError);
  const std::string path = std::getenv("PATH");
  ::setenv("PATH", folder_.c_str(), 1);
  std::string message;
  try {
    plot_losses(sample_run(3), folder_ / "loss.png", "t");
  } catch (const ConfigError& error) {
    message = error.what();
  }
  ::setenv("PATH", path.c_str(), 1);
  EXPECT_NE(message.find("gnuplot is missing (Debian package gnuplot-nox)"), std::string::npos)
      << message;
}

// A variable of the environment for the object's life.
class SetVariable {
 public:
  SetVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    ::setenv(name, value.c_str(), 1);
  }
  ~SetVariable() {
    if (before_) ::setenv(name_, before_->c_str(), 1);
    if (!before_) ::unsetenv(name_);
  }
  SetVariable(const SetVariable&) = delete;
  SetVariable& operator=(const SetVariable&) = delete;

 private:
  const char* name_;
  std::optional<std::string> before_;
};

TEST_F(Pictures, AGnuplotThatHangsOrMakesNothingIsAnErrorAndLeavesNothing) {
  namespace fs = std::filesystem;
  const fs::path programs = folder_ / "bin", temporary = folder_ / "tmp";
  for (const fs::path& folder : {programs, temporary}) fs::create_directories(folder);
  const SetVariable path("PATH", concat(programs.string(), ":", std::getenv("PATH")));
  const SetVariable tmpdir("TMPDIR", temporary.string());
  const auto why_not_drawn = [&](const std::string& program) {
    write_file(programs / "gnuplot", "#!/bin/sh\n" + program + "\n");
    fs::permissions(programs / "gnuplot", fs::perms::owner_all);
    try {
      draw_with_gnuplot(folder_ / "loss.png", {}, "plot x\n", {}, std::chrono::milliseconds(300));
    } catch (const ConfigError& error) {
      EXPECT_TRUE(fs::is_empty(temporary)) << program;
      return std::string(error.what());
    }
    return std::string("no error");
  };
  EXPECT_NE(why_not_drawn("sleep 100").find("gnuplot was not done after 300 ms"),
            std::string::npos);
  EXPECT_NE(why_not_drawn("exit 0").find("gnuplot made no picture"), std::string::npos);
  EXPECT_NE(why_not_drawn("echo no font; exit 1").find("gnuplot failed: no font"),
            std::string::npos);
  fs::remove(temporary);
  EXPECT_THROW(draw_with_gnuplot(folder_ / "loss.png", {}, "plot x\n", {}), ConfigError);
}

TEST_F(Pictures, WritesAChromeTrace) {
  const std::filesystem::path path = folder_ / "trace.json";
  write_chrome_trace(path, {{"attention \"F\"", 1, 2, 0.5, 0.25, "micro-batch 3"}},
                     {{1, 2, "compute"}});
  const Json trace = read_json(path);
  const Json& events = trace.at("traceEvents");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].at("args").at("name"), "rank 1");
  EXPECT_EQ(events[1].at("args").at("name"), "compute");
  EXPECT_EQ(events[2].at("name"), "attention \"F\"");
  EXPECT_EQ(events[2].at("ph"), "X");
  EXPECT_EQ(events[2].at("ts"), 5e5);
  EXPECT_EQ(events[2].at("dur"), 2.5e5);
  EXPECT_EQ(events[2].at("args").at("description"), "micro-batch 3");
  write_chrome_trace(path, {}, {});
  EXPECT_TRUE(read_json(path).at("traceEvents").empty());
}

}  // namespace
}  // namespace moetron
