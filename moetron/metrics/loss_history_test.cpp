#include "moetron/metrics/loss_history.h"

#include <cmath>
#include <fstream>
#include <random>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/metrics_file.h"
#include "moetron/metrics/metrics_test_data.h"
#include "moetron/metrics/tensorboard.h"

namespace moetron {
namespace {

constexpr const char* kMegatronLog =
    "using world size: 64, data-parallel size: 16\n"
    "> building train, validation, and test datasets for GPT ...\n"
    " [2024-05-01 12:00:00.1] iteration        5/     100 | consumed samples:          640 | "
    "elapsed time per iteration (ms): 1250.0 | throughput per GPU (TFLOP/s/GPU): 201.5 | learning "
    "rate: 1.000000E-04 | global batch size:   128 | lm loss: 1.234567E+00 | load_balancing_loss: "
    "1.1E+00 | loss scale: 1.0 | grad norm: 0.231 | number of nan iterations:   0 |\n"
    "(min, max) time across ranks (ms):\n"
    "[default7]:[2024-05-01 12:00:05] iteration       10/     100 | lm loss: 1.5E+00 | grad norm: "
    "nan |\r\n"
    "validation loss at iteration 10 on validation set | lm loss value: 1.75E+00 | lm loss PPL: "
    "5.75E+00 | \n"
    "validation loss at iteration 10 on test set | lm loss value: 9E+00 | lm loss PPL: 8E+03 | \n"
    " [2024-05-01 12:01:00] iteration       10/     100 | lm loss: 1.25E+00 | grad norm: 0.5 |\n"
    " [2024-05-01 12:01:05] iteration       15/     100 | lm loss: 1.1";

class LossHistory : public MetricsFolderTest {
 protected:
  History read(const std::string& text, const std::string& metric = "loss") const {
    std::ofstream(folder_ / "log", std::ios::binary)
        << text;  // without an fsync: thousands of them
    return read_run(folder_ / "log", metric).history;
  }
  std::string message_of(const std::string& name, const std::string& metric = "loss") const {
    try {
      read_run(folder_ / name, metric).history;
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST(SmoothedHistory, IsTheMeanOfAPointAndThoseBeforeIt) {
  const History history = {{1, 1.0}, {2, 3.0}, {4, 8.0}, {5, INFINITY}, {6, 1.0}, {7, 3.0}};
  EXPECT_EQ(smoothed(history, 1), history);
  EXPECT_EQ(smoothed(history, 2),
            (History{{2, 2.0}, {4, 5.5}, {5, INFINITY}, {6, INFINITY}, {7, 2.0}}));
  EXPECT_EQ(smoothed(history, 7), History{});
}

TEST_F(LossHistory, ReadsMegatronLogs) {
  EXPECT_EQ(read(kMegatronLog), (History{{5, 1.234567}, {10, 1.25}}));  // the later step 10
  EXPECT_EQ(read(kMegatronLog, "grad_norm"), (History{{5, 0.231}, {10, 0.5}}));
  EXPECT_EQ(read(kMegatronLog, "lr"), (History{{5, 1e-4}}));
  EXPECT_EQ(read(kMegatronLog, "seconds"), (History{{5, 1.25}}));
  EXPECT_EQ(read(kMegatronLog, "tflops_per_second"), (History{{5, 201.5}}));
  EXPECT_EQ(read(kMegatronLog, "aux_loss"), (History{{5, 1.1}}));
  EXPECT_EQ(read(kMegatronLog, "validation_loss"), (History{{10, 1.75}}));
  EXPECT_TRUE(read(kMegatronLog, "mfu").empty());
  const History nan = read(" iteration 1/ 2 | lm loss: nan |\n iteration 2/ 2 | lm loss: inf |\n");
  ASSERT_EQ(nan.size(), 2u);
  EXPECT_TRUE(std::isnan(nan[0].value));
  EXPECT_TRUE(std::isinf(nan[1].value));
}

TEST_F(LossHistory, ReadsMetricsAndTheirFolder) {
  {
    MetricsWriter writer(folder_ / "run" / "metrics.jsonl", 0);
    for (const int64_t step : {1, 2}) {
      StepRecord record = sample_record(step);
      record.loss = 3.0 / static_cast<double>(step);
      if (step == 2) record.grad_norm.reset();
      writer.write(record);
    }
  }
  const History losses{{1, 3.0}, {2, 1.5}};
  EXPECT_EQ(read_run(folder_ / "run" / "metrics.jsonl", "loss").history, losses);
  EXPECT_EQ(read_run(folder_ / "run", "loss").history, losses);
  EXPECT_EQ(read_run(folder_ / "run", "grad_norm").history, (History{{1, 1.0 / 7.0}}));
  EXPECT_EQ(read_run(folder_ / "run", "tokens_per_second").history.size(), 2u);
  EXPECT_TRUE(read_run(folder_ / "run", "validation_loss").history.empty());
}

TEST_F(LossHistory, ReadsEventFilesOfOursAndOfMegatron) {
  {
    TensorBoardWriter writer(folder_ / "ours", 0);
    StepRecord record = sample_record(3);
    record.loss = 2.5;
    writer.write(record);
  }
  EXPECT_EQ(read_run(folder_ / "ours", "loss").history, (History{{3, 2.5}}));
  EXPECT_EQ(read_run(folder_ / "ours", "seconds").history, (History{{3, 0.75}}));
  std::filesystem::path path;
  {
    TensorBoardWriter writer(folder_ / "megatron", 0);
    path = writer.path();
    writer.scalar("lm loss", 4.0, 1);
    writer.scalar("lm loss vs samples", 9.0, 128);
    writer.scalar("", 9.0, 2);
    writer.scalar("lm loss", 3.5, 2);
    writer.scalar("grad-norm", 0.5, 2);
  }
  const History losses{{1, 4.0}, {2, 3.5}};
  EXPECT_EQ(read_run(folder_ / "megatron", "loss").history, losses);
  EXPECT_EQ(read_run(folder_ / "megatron", "grad_norm").history, (History{{2, 0.5}}));
  EXPECT_TRUE(read_run(folder_ / "megatron", "tokens_per_second").history.empty());
  std::filesystem::rename(path, folder_ / "other name");
  EXPECT_EQ(read_run(folder_ / "other name", "loss").history, losses);
}

TEST_F(LossHistory, KnowsWhereARunWentOn) {
  const auto resumes_of = [&](const std::string& text) {
    write_file(folder_ / "log", text);
    return read_run(folder_ / "log", "loss").resumes;
  };
  EXPECT_TRUE(resumes_of("step,loss\n1,3\n2,2\n3,1\n").empty());
  EXPECT_EQ(resumes_of("step,loss\n1,3\n2,2\n3,1\n2,2\n3,1\n"), (std::vector<Resume>{{2, 2}}));
  // A later start from an older checkpoint: what was resumed behind it is gone.
  EXPECT_EQ(resumes_of("step,loss\n1,5\n2,4\n3,3\n3,3\n4,2\n2,4\n"), (std::vector<Resume>{{2, 3}}));
  EXPECT_TRUE(resumes_of("{\"lm loss\": {\"values\": {\"1\": 3, \"2\": 2, \"10\": 1}}}").empty());
  std::filesystem::remove(folder_ / "log");
  for (const int64_t begin : {0, 2, 4}) {  // stops at 4 of a checkpoint of 2, and behind that at 4
    MetricsWriter writer(folder_ / "run" / "metrics.jsonl", begin);
    for (int64_t step = begin + 1; step <= begin + 4 - begin / 2; ++step)
      writer.write(sample_record(step));
  }
  EXPECT_EQ(read_run(folder_ / "run", "loss").resumes, (std::vector<Resume>{{3, 2}, {5, 1}}));
}

TEST_F(LossHistory, TakesEveryNumberOfARecord) {
  StepRecord record = sample_record(3);
  record.router_balance = RouterBalance{1.5, 1.25, 0.5, 0.9, 4};
  record.activation_memory = ActivationMemory{{}, 77};
  MetricsWriter(folder_ / "run" / "metrics.jsonl", 0).write(record);
  const std::vector<std::pair<std::string, double>> expected = {
      {"memory_bytes", double(record.memory_bytes)},
      {"consumed_samples", 3072},
      {"activation_memory.peak_bytes", 77},
      {"router_balance.max_load", 1.5},
      {"router_balance.mean_load", 1.25},
      {"router_balance.idle_share", 0.5},
      {"router_balance.entropy", 0.9},
      {"router_balance.num_dead", 4}};
  for (const auto& [metric, value] : expected)
    EXPECT_EQ(read_run(folder_ / "run", metric).history, (History{{3, value}})) << metric;
  EXPECT_THROW(check_metric("router_balance"), ConfigError);
}

// A run that went on from step 1 wrote a second file.
TEST_F(LossHistory, TheLaterOfTwoEventFilesCounts) {
  const auto write = [&](const char* name, double loss) {
    TensorBoardWriter writer(folder_ / "new", 0);
    writer.scalar("train/loss", loss, 2);
    std::filesystem::create_directories(folder_ / "run");
    std::filesystem::rename(writer.path(), folder_ / "run" / name);
  };
  write("events.out.tfevents.200.host", 2.0);
  write("events.out.tfevents.100.host", 1.0);
  EXPECT_EQ(read_run(folder_ / "run", "loss").history, (History{{2, 2.0}}));
}

TEST_F(LossHistory, SaysWhatIsWrong) {
  write_file(folder_ / "poem", "Tyger Tyger, burning bright\n");
  EXPECT_NE(message_of("poem").find("poem holds no training steps"), std::string::npos);
  write_file(folder_ / "empty", "");
  EXPECT_NE(message_of("empty").find("empty holds no training steps"), std::string::npos);
  EXPECT_NE(message_of("absent").find("absent"), std::string::npos);
  std::filesystem::create_directories(folder_ / "folder");
  EXPECT_NE(message_of("folder").find("holds neither a metrics.jsonl nor TensorBoard event files"),
            std::string::npos);
  write_file(folder_ / "bad", " iteration 1/ 2 | lm loss: much |\n");
  EXPECT_NE(message_of("bad").find("bad:1: lm loss is not a number"), std::string::npos);
  write_file(folder_ / "half.jsonl", "{\"step\": 1}\n");
  EXPECT_NE(message_of("half.jsonl").find("half.jsonl:1: "), std::string::npos);
  write_file(folder_ / "x.tfevents", "this is no record at all");
  EXPECT_NE(message_of("x.tfevents").find("record at byte 0 is damaged"), std::string::npos);
  EXPECT_EQ(message_of("poem", "los"),
            "metric (los) is none of loss, validation_loss, validation_perplexity, rewards.chosen, "
            "rewards.rejected, "
            "rewards.accuracies, rewards.margins, validation_rewards.accuracies, "
            "validation_rewards.margins, aux_loss, grad_norm, params_norm, "
            "num_zeros_in_grad, lr, "
            "tokens_per_second, tflops_per_second, mfu, seconds, memory_bytes, consumed_samples, "
            "activation_memory.peak_bytes, router_balance.max_load, router_balance.mean_load, "
            "router_balance.idle_share, router_balance.entropy, router_balance.num_dead");
}

TEST_F(LossHistory, SurvivesDamagedLogs) {
  const std::string good = kMegatronLog;
  std::mt19937 random(3);
  int num_read = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string damaged = good.substr(0, random() % 2 == 0 ? good.size() : random() % good.size());
    for (int change = 0; change < 4 && !damaged.empty(); ++change) {
      const size_t at = random() % damaged.size();
      if (random() % 3 == 0) {
        damaged.erase(at, 1 + random() % 40);
      } else {
        damaged[at] = "|:/ \n9e\x00\xff{"[random() % 10];
      }
    }
    try {
      num_read += static_cast<int>(read(damaged).size());
    } catch (const InputError& error) {
      EXPECT_STRNE(error.what(), "");
    }
  }
  EXPECT_GT(num_read, 100);
  EXPECT_THROW(read(" iteration 99999999999999999999/ 2 | lm loss: 1 |\n"), InputError);
  EXPECT_THROW(read(" iteration 1/ 2 | lm loss: 1e999 |\n"), InputError);
}

}  // namespace
}  // namespace moetron
