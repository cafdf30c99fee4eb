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
  record.params_norm = 1.0 / 7.0;
  record.num_zeros_in_grad = int64_t{1} << 61;
  record.router_balance = RouterBalance{
      .max_load = 1.0 / 3.0, .mean_load = 1e-300, .idle_share = std::nextafter(1.0, 2.0)};
  const std::string line = to_json_line(record);
  EXPECT_EQ(line.find('\n'), std::string::npos);
  const StepRecord again = parse_step_record(line, "metrics.jsonl:1");
  EXPECT_EQ(to_json_line(again), line);
  EXPECT_EQ(again.step, record.step);
  EXPECT_EQ(again.loss, record.loss);
  EXPECT_EQ(again.grad_norm, record.grad_norm);
  EXPECT_EQ(again.params_norm, record.params_norm);
  EXPECT_EQ(again.num_zeros_in_grad, record.num_zeros_in_grad);
  EXPECT_EQ(again.validation_loss, 0.1 + 0.2);
  EXPECT_EQ(again.router_balance->mean_load, 1e-300);
  EXPECT_EQ(again.router_balance->idle_share, std::nextafter(1.0, 2.0));
}

TEST(StepRecord, KeepsEveryLayersLoad) {
  StepRecord record = sample_record(1);
  record.router_balance = router_balance({layer_load(1, {3, 4, 0}), layer_load(5, {0, 0, 7})});
  const std::string line = to_json_line(record);
  const StepRecord again = parse_step_record(line, "here");
  EXPECT_EQ(to_json_line(again), line);
  const RouterBalance& balance = *again.router_balance;
  EXPECT_EQ(balance.entropy, record.router_balance->entropy);
  EXPECT_EQ(balance.num_dead, 3);
  ASSERT_EQ(balance.layers.size(), 2u);
  EXPECT_EQ(balance.layers[1].layer, 5);
  EXPECT_EQ(balance.layers[0].load, (std::vector<double>{0.428571, 0.571429, 0.0}));
  EXPECT_EQ(balance.layers[0].num_dead, 1);
  EXPECT_EQ(balance.layers[0].entropy, record.router_balance->layers[0].entropy);
  EXPECT_EQ(balance.layers[1].imbalance, 3.0);
}

TEST(StepRecord, KeepsAnswers) {
  StepRecord record;
  record.validation_loss = 2;
  record.samples = {{"Who?\n", "\u00e4", ""}, {"", "b", "c"}};
  const std::string line = to_json_line(record);
  const StepRecord again = parse_step_record(line, "test");
  EXPECT_EQ(to_json_line(again), line);
  ASSERT_EQ(again.samples.size(), 2u);
  EXPECT_EQ(again.samples[0].prompt, "Who?\n");
  EXPECT_EQ(again.samples[0].answer, "\u00e4");
  EXPECT_EQ(again.samples[1].in_data, "c");
  EXPECT_EQ(validation_perplexity(again), std::exp(2.0));
  record.validation_rewards.emplace();
  EXPECT_FALSE(validation_perplexity(record));
  std::string broken = line;
  broken.replace(broken.find("\"Who?\\n\""), 8, "3");
  EXPECT_THROW(parse_step_record(broken, "test"), InputError);
}

TEST(StepRecord, KeepsTheRewardsOfPairs) {
  StepRecord record;
  record.rewards = Rewards{.chosen = 0.1, .rejected = -0.3, .accuracies = 0.75, .margins = 0.4};
  record.validation_rewards = Rewards{.margins = 1.0 / 3.0};
  const StepRecord again = parse_step_record(to_json_line(record), "test");
  ASSERT_TRUE(again.rewards && again.validation_rewards);
  EXPECT_EQ(again.rewards->chosen, 0.1);
  EXPECT_EQ(again.rewards->rejected, -0.3);
  EXPECT_EQ(again.rewards->accuracies, 0.75);
  EXPECT_EQ(again.rewards->margins, 0.4);
  EXPECT_EQ(again.validation_rewards->margins, 1.0 / 3.0);
  EXPECT_FALSE(parse_step_record(to_json_line(StepRecord()), "test").rewards);
}

TEST(StepRecord, KeepsTheReceipt) {
  StepRecord record = sample_record(1);
  record.receipt = BitReceipt{.loss = 1, .gradients = {{"w", 2}}, .parameters = {{"w", ~0ULL}}};
  EXPECT_EQ(parse_step_record(to_json_line(record), "here").receipt, record.receipt);
}

TEST(StepRecord, KeepsTheSavesThatEnded) {
  StepRecord record = sample_record(1);
  record.saves = {
      {.step = 4, .stall_seconds = 0.25, .write_seconds = 1, .bytes = 5, .crossed = 0.5},
      {.step = 8, .failure = "cannot write x: No space left on device"}};
  EXPECT_EQ(parse_step_record(to_json_line(record), "here").saves, record.saves);
}

TEST(StepRecord, KeepsTheActivationMemory) {
  StepRecord record = sample_record(1);
  record.activation_memory.emplace();
  record.activation_memory->add("experts", int64_t{1} << 40);
  record.activation_memory->add("attention", 17);
  record.activation_memory->peak_bytes = int64_t{1} << 41;
  const std::string line = to_json_line(record);
  const StepRecord again = parse_step_record(line, "here");
  EXPECT_EQ(to_json_line(again), line);
  ASSERT_EQ(again.activation_memory->kept.size(), 2u);
  EXPECT_EQ(again.activation_memory->kept[0].purpose, "experts");
  EXPECT_EQ(again.activation_memory->kept[1].bytes, 17);
  EXPECT_EQ(again.activation_memory->peak_bytes, int64_t{1} << 41);
}

TEST(StepRecord, LeavesOutWhatIsNotKnown) {
  StepRecord record;
  record.step = 3;
  const std::string line = to_json_line(record);
  for (const char* key :
       {"aux_loss", "grad_norm", "mfu", "validation_loss", "router_balance", "activation_memory"})
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
  const auto with = [&](const std::string& more) {
    return good.substr(0, good.size() - 1) + "," + more + "}";
  };
  for (const std::string& bad :
       {std::string(), std::string("3"), std::string("{}"), good.substr(0, good.size() - 1),
        std::string(R"({"step": 1.5})"), std::string(R"({"step": 1, "loss": "high"})"),
        with(R"("router_balance":[1])"),
        with(R"("router_balance":{"max_load":1,"mean_load":1,"idle_share":0,"layers":[7]})"),
        with(R"("router_balance":{"max_load":1,"mean_load":1,"idle_share":0,"layers":[{}]})"),
        with(R"("router_balance":{"max_load":1,"mean_load":1,"idle_share":0,"num_dead":0.5})"),
        with(R"("activation_memory":3)"),
        with(R"("activation_memory":{"kept":[{"bytes":1}],"peak_bytes":1})"),
        with(R"("activation_memory":{"kept":{},"peak_bytes":1})")})
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
