#include "moetron/metrics/metrics_file.h"

#include <csignal>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

class MetricsFile : public MetricsFolderTest {
 protected:
  std::vector<int64_t> steps() const {
    std::vector<int64_t> result;
    for (const StepRecord& record : read_metrics(path_)) result.push_back(record.step);
    return result;
  }
  void write_steps(int64_t last_step, int64_t first, int64_t end) const {
    MetricsWriter writer(path_, last_step);
    for (int64_t step = first; step < end; ++step) writer.write(sample_record(step));
  }
  std::filesystem::path path_ = folder_ / "run" / "metrics.jsonl";
};

TEST_F(MetricsFile, AppendsAndIsReadWhileOpen) {
  MetricsWriter writer(path_, 0);
  writer.write(sample_record(1));
  EXPECT_EQ(steps(), (std::vector<int64_t>{1}));
  writer.write(sample_record(2));
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
}

TEST_F(MetricsFile, ResumeRepeatsNoStep) {
  write_steps(0, 1, 6);
  write_steps(3, 4, 6);  // a checkpoint of step 3
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3, 4, 5}));
  write_steps(0, 1, 3);  // a fresh run
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
}

TEST_F(MetricsFile, TheFirstRecordBehindAResumeTellsOfIt) {
  write_steps(0, 1, 6);
  write_steps(3, 4, 6);  // two steps again
  write_steps(5, 6, 8);  // stopped behind a checkpoint
  std::vector<std::optional<int64_t>> repeats;
  for (const StepRecord& record : read_metrics(path_)) repeats.push_back(record.resume_repeats);
  EXPECT_EQ(repeats, (std::vector<std::optional<int64_t>>{{}, {}, {}, 2, {}, 0, {}}));
}

TEST_F(MetricsFile, ResumeDropsWhatACrashLeft) {
  write_steps(0, 1, 4);
  const std::string good = read_file(path_);
  write_file(path_, good + std::string(100, '\0') + "\n" + good.substr(0, 40));
  EXPECT_THROW(read_metrics(path_), InputError);  // the zeros are no record
  write_steps(3, 4, 5);
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST_F(MetricsFile, ReadingDropsACutLastLineOnly) {
  write_steps(0, 1, 4);
  const std::string good = read_file(path_);
  for (const size_t cut : {good.size() - 1, good.size() - 30}) {
    write_file(path_, good.substr(0, cut));
    EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2}));
  }
  write_file(path_, "");
  EXPECT_TRUE(steps().empty());
  write_file(path_, good + "broken\n");
  try {
    read_metrics(path_);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_EQ(std::string(error.what()).find(path_.string() + ":4"), 0u) << error.what();
  }
}

TEST_F(MetricsFile, AFileOfOtherContentIsRefusedAndStays) {
  std::filesystem::create_directories(path_.parent_path());
  for (const char* text : {"my notes\n", "no line end", "{\"loss\": 1}\n", "{\"step\": 1\n"}) {
    write_file(path_, text);
    try {
      MetricsWriter writer(path_, 0);
      FAIL() << text;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(path_.string()), std::string::npos);
    }
    EXPECT_EQ(read_file(path_), text);
  }
  // What a crash in the first record leaves is ours.
  for (const std::string& text : {std::string(""), std::string("{\"step\":1,\"lo"),
                                  std::string("{\"st"), std::string(50, '\0')}) {
    write_file(path_, text);
    write_steps(0, 1, 2);
    EXPECT_EQ(steps(), std::vector<int64_t>{1}) << text;
  }
}

TEST_F(MetricsFile, LinesThatTheSystemRefusedComeLater) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    MetricsWriter writer(path_, 0);
    writer.write(sample_record(1));
    const auto size = static_cast<rlim_t>(std::filesystem::file_size(path_));
    const auto set_limit = [](rlim_t bytes) {
      const rlimit limit{bytes, RLIM_INFINITY};
      ::setrlimit(RLIMIT_FSIZE, &limit);
    };
    set_limit(size + 30);
    int refused = 0;
    for (const int64_t step : {2, 3}) {
      try {
        writer.write(sample_record(step));
      } catch (const ConfigError&) {
        ++refused;
      }
    }
    set_limit(RLIM_INFINITY);
    writer.write(sample_record(4));
    ::_exit(refused);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 2);
  EXPECT_EQ(steps(), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST_F(MetricsFile, NamesAFileThatCannotBeWritten) {
  write_file(folder_ / "file", "x");
  EXPECT_THROW(MetricsWriter(folder_ / "file" / "metrics.jsonl", 0), ConfigError);
  EXPECT_THROW(read_metrics(folder_ / "absent"), InputError);
}

}  // namespace
}  // namespace moetron
