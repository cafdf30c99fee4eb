#include "moetron/metrics/step_record.h"

#include <cmath>
#include <limits>

#include "moetron/base/error.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

TEST(StepRecord, KeepsEveryBit) {
  StepRecord record = sample_record(int64_t{1} << 60);
  record.validation_loss = 0.1 + 0.2;
  record.router_balance = RouterBalance{1.0 / 3.0, 1e-300, std::nextafter(1.0, 2.0)};
  const std::string line = to_json_line(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const StepRecord again = parse_step_record(line, "metrics.jsonl:1");
  EXPECT_EQ(to_json_line(again), line);
  EXPECT_EQ(again.step, record.step);
  EXPECT_EQ(again.loss, record.loss);
  EXPECT_EQ(again.grad_norm, record.grad_norm);
  EXPECT_EQ(again.validation_loss, 0.1 + 0.2);
  EXPECT_EQ(again.router_balance->mean_load, 1e-300);
  EXPECT_EQ(again.router_balance->idle_share, std::nextafter(1.0, 2.0));
}

TEST(StepRecord, LeavesOutWhatIsNotKnown) {
  StepRecord record;
  record.step = 3;
  const std::string line = to_json_line(record);
  for (const char* key : {"aux_loss", "grad_norm", "mfu", "validation_loss", "router_balance"})
    EXPECT_EQ(line.find(key), std::string::npos) << key;
  EXPECT_FALSE(parse_step_record(line, "here").grad_norm);
}

TEST(StepRecord, WritesWhatIsNotFinite) {
  StepRecord record = sample_record(1);
  record.loss = std::numeric_limits<double>::quiet_NaN();
  record.grad_norm = -std::numeric_limits<double>::infinity();
  const StepRecord again = parse_step_record(to_json_line(record), "here");
  EXPECT_TRUE(std::isnan(again.loss));
  EXPECT_EQ(again.grad_norm, record.grad_norm);
}

TEST(StepRecord, RefusesOtherLines) {
  const std::string good = to_json_line(sample_record(1));
  for (const std::string& bad :
       {std::string(), std::string("3"), std::string("{}"), good.substr(0, good.size() - 1),
        std::string(R"({"step": 1.5})"), std::string(R"({"step": 1, "loss": "high"})"),
        good.substr(0, good.size() - 1) + R"(,"router_balance":[1]})"})
    EXPECT_THROW(parse_step_record(bad, "here"), InputError) << bad;
  try {
    parse_step_record(R"({"step": 1, "loss": "high"})", "metrics.jsonl:7");
    FAIL();
  } catch (const InputError& error) {
    EXPECT_STREQ(error.what(), "metrics.jsonl:7: loss is not a number");
  }
}

}  // namespace
}  // namespace moetron
