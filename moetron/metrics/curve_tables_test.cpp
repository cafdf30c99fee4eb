// The curves that other programs keep, read by what they are.
#include "moetron/metrics/curve_tables.h"

#include <cmath>
#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "moetron/base/error_test_support.h"
#include "moetron/metrics/loss_history.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

constexpr const char* kGolden =
    R"({"lm loss": {"start_step": 1, "end_step": 10, "step_interval": 5,
        "values": {"1": 10.5, "5": 9.25, "10": "nan"}},
        "iteration-time": {"start_step": 1, "end_step": 10, "step_interval": 5,
        "values": [2.0, 1.5, 1.25]}})";

class CurveTables : public MetricsFolderTest {
 protected:
  History read(const std::string& text, const std::string& metric = "loss") const {
    std::ofstream(folder_ / "curve", std::ios::binary) << text;  // without an fsync
    return read_run(folder_ / "curve", metric).history;
  }
  std::string refusal(const std::string& text, const std::string& metric = "loss") const {
    return error_of<InputError>([&] { read(text, metric); });
  }
};

TEST_F(CurveTables, ReadMegatronsGoldenValues) {
  const History losses = read(kGolden);
  ASSERT_EQ(losses.size(), 3u);
  EXPECT_EQ(losses[1], (HistoryPoint{5, 9.25}));
  EXPECT_EQ(losses[2].step, 10);
  EXPECT_TRUE(std::isnan(losses[2].value));
  EXPECT_EQ(read(kGolden, "seconds"), (History{{1, 2.0}, {6, 1.5}, {11, 1.25}}));
  EXPECT_TRUE(read(kGolden, "lr").empty());
}

TEST_F(CurveTables, ReadTablesOfText) {
  const History wanted{{1, 2.5}, {2, 1.25}};
  EXPECT_EQ(read("step,loss,lr\n1,2.5,1e-3\n2,1.25,1e-3\n"), wanted);
  EXPECT_EQ(read("lr,Iteration,LM loss\r\n0.1,1,2.5\r\n0.1,2.0,1.25\r\n"), wanted);
  EXPECT_EQ(read("Wall time,Step,Value\n1700000000.5,1,2.5\n1700000001.5,2,1.25\n"), wanted);
  EXPECT_EQ(read("step\tloss\n1\t2.5\n2\t1.25"), wanted);
  EXPECT_EQ(read("\"global_step\",\"a, b\",\"loss\"\n1,\"x, y\",2.5\n\n2,z,1.25\n"), wanted);
  EXPECT_EQ(read("1 2.5\n2 1.25\n"), wanted);
  EXPECT_EQ(read("step,loss,lr\n1,,5e-4\n2,1.25,\n", "lr"), (History{{1, 5e-4}}));
  EXPECT_TRUE(read("1 2.5\n2 1.25\n", "lr").empty());
  EXPECT_TRUE(read("step,accuracy,f1\n1,0.5,0.5\n").empty());
}

TEST_F(CurveTables, SayWhatIsWrong) {
  const std::string file = (folder_ / "curve").string();
  EXPECT_EQ(refusal("step,loss\n1,2\n2,much\n"), file + ":3: \"much\" is not a number");
  EXPECT_EQ(refusal("step,loss\n1.5,2\n"), file + ":2: \"1.5\" is no step");
  EXPECT_EQ(refusal("step,x,loss\n1,2\n"), file + ":2: 2 fields, where the first line has 3");
  EXPECT_EQ(refusal(R"({"lm loss": {"start_step": 1, "values": {"one": 1}}})"),
            file + ": lm loss has the step \"one\", which is no number");
  EXPECT_EQ(refusal(R"({"lm loss": {"start_step": 1, "values": {"1": "x"}}})"),
            file + ": lm loss at step 1 is not a number");
  EXPECT_EQ(refusal(R"({"lm loss": {"start_step": 1, "values": [1]}})"),
            file + ": lm loss has values without start_step and step_interval");
}

TEST_F(CurveTables, SurviveDamage) {
  std::mt19937 random(5);
  int num_read = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string damaged = i % 2 == 0 ? kGolden : "step,loss\n1,2.5\n2,1.25\n3,1\n";
    for (int change = 0; change < 3; ++change) {
      const size_t at = random() % damaged.size();
      if (random() % 3 == 0) {
        damaged.erase(at, 1 + random() % 20);
      } else {
        damaged[at] = ",\"{}[:\n9e "[random() % 10];
      }
      if (damaged.empty()) break;
    }
    try {
      num_read += static_cast<int>(read(damaged).size());
    } catch (const InputError& error) {
      EXPECT_STRNE(error.what(), "");
    }
  }
  EXPECT_GT(num_read, 30);
}

}  // namespace
}  // namespace moetron
