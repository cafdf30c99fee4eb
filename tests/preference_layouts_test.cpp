// Tuning by pairs of answers in every layout of ranks and under every schedule.
#include <cmath>
#include <mutex>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "layout_cases.h"
#include "pipeline_cases.h"

namespace moetron {
namespace {

constexpr int64_t kSamples = 32, kSeq = 16;

// Pairs with a prompt in common, answers of several lengths, and padding behind them.
class PairDataset final : public TokenDataset {
 public:
  explicit PairDataset(std::vector<double> references = {}) : references_(std::move(references)) {}

  int64_t size() const override { return kSamples; }
  int64_t sequence_length() const override { return kSeq; }
  TokenSample get(int64_t index) const override {
    const int64_t pair = index / 2, prompt = 3 + pair % 4, length = prompt + 3 + index % 6;
    TokenSample sample{.tokens = std::vector<int32_t>(kSeq, 0),
                       .labels = std::vector<int32_t>(kSeq, 0),
                       .loss_weights = std::vector<float>(kSeq, 0),
                       .positions = std::vector<int32_t>(kSeq, 0),
                       .document_bounds = {0, static_cast<int32_t>(length)}};
    const auto token = [&](int64_t place) {
      const int64_t from = place < prompt ? pair : kSamples + index;
      return static_cast<int32_t>((7 * from * from + 13 * place * from + 5 * place + 3) % 61);
    };
    for (int64_t i = 0; i < length; ++i) {
      const auto place = static_cast<size_t>(i);
      sample.tokens[place] = token(i);
      sample.positions[place] = static_cast<int32_t>(i);
      if (i + 1 == length || i + 1 < prompt) continue;
      sample.labels[place] = token(i + 1);
      sample.loss_weights[place] = 1;
    }
    sample.reference_log_probability = references_.empty()
                                           ? -4.0 * static_cast<double>(length - prompt)
                                           : references_[static_cast<size_t>(index)];
    return sample;
  }

 private:
  std::vector<double> references_;
};

const PairDataset kPairs;

TrainedTask pair_task(bool is_deepseek) {
  TrainedTask task{.config = is_deepseek ? tiny_deepseek() : tiny_qwen_moe(), .steps = 2};
  task.micro_batch_size = 2;
  task.global_batch_size = 16;
  task.dataset = &kPairs;
  task.preferences = {.beta = 0.5, .label_smoothing = 0.1};
  task.evaluation_batch_size = 16;
  return task;
}

void expect_equal_rewards(const TrainedOutcome& found, const TrainedOutcome& wanted,
                          const std::string& label) {
  ASSERT_EQ(found.steps.size(), wanted.steps.size()) << label;
  for (size_t i = 0; i < wanted.steps.size(); ++i) {
    ASSERT_TRUE(found.steps[i].rewards && wanted.steps[i].rewards) << label;
    const Rewards &a = *found.steps[i].rewards, &b = *wanted.steps[i].rewards;
    EXPECT_NEAR(a.chosen, b.chosen, 1e-5) << label;
    EXPECT_NEAR(a.rejected, b.rejected, 1e-5) << label;
    EXPECT_NEAR(a.margins, b.margins, 1e-5) << label;
    EXPECT_EQ(a.accuracies, b.accuracies) << label;
  }
  EXPECT_NEAR(found.validation_loss, wanted.validation_loss, 1e-5) << label;
}

TEST(Preferences, TrainInEveryLayoutAsOnOneRank) {
  for (const bool is_deepseek : {true, false}) {
    const TrainedTask task = pair_task(is_deepseek);
    const TrainedOutcome one = train_in_layout(task, {});
    EXPECT_GT(one.gradients.size(), 20u);
    EXPECT_GT(one.validation_loss, 0);
    std::vector<LayoutCase> layouts = {{.world = 2},
                                       {.world = 2, .tp = 2},
                                       {.world = 2, .ep = 2},
                                       {.world = 4, .tp = 2, .ep = 2, .tpe = 2},
                                       {.world = 4, .pp = 2, .tp = 2, .ep = 2},
                                       {.world = 4, .pp = 2, .ep = 2}};
    layouts.back().schedule.kind = ScheduleKind::kZbH1;
    layouts[0].buckets = {.distributed = true, .overlap_reduce = true, .overlap_gather = true};
    for (const LayoutCase& layout : layouts) {
      const TrainedOutcome outcome = train_in_layout(task, layout);
      expect_equal_training(outcome, one, layout.name());
      expect_equal_rewards(outcome, one, layout.name());
    }
  }
}

TEST(Preferences, GiveTheSameBitsUnderEverySchedule) {
  TrainedTask task = pair_task(/*is_deepseek=*/false);
  task.config.num_layers = 4;
  const TrainedOutcome one = train_in_layout(task, {});
  for (const ScheduleRequest& request : schedule_requests(2)) {
    const LayoutCase layout{.world = 2, .pp = 2, .schedule = request};
    const TrainedOutcome outcome = train_in_layout(task, layout);
    EXPECT_EQ(first_difference(outcome, one), "") << layout.name();
    expect_equal_rewards(outcome, one, layout.name());
  }
}

// What the model gives every sample before it is trained.
std::vector<double> log_probabilities(TrainedTask task, const LayoutCase& layout) {
  std::vector<double> found;
  std::mutex mutex;
  task.steps = 0;
  task.evaluation_batch_size = 0;
  task.change_training = [&](TrainStep& train_step, Communicator&) {
    const std::vector<double> mine = train_step.log_probabilities(
        kPairs, {task.micro_batch_size, task.global_batch_size, at::kCPU, /*pairs=*/true});
    const std::lock_guard lock(mutex);
    if (found.empty()) found = mine;
    EXPECT_EQ(found, mine) << "ranks differ";
  };
  train_in_layout(task, layout);
  return found;
}

TEST(Preferences, AreComparedWithAReferenceInEveryLayout) {
  const TrainedTask task = pair_task(/*is_deepseek=*/true);
  const std::vector<double> one = log_probabilities(task, {});
  ASSERT_EQ(one.size(), static_cast<size_t>(kSamples));
  LayoutCase dualpipev{.world = 4, .pp = 2, .ep = 2};
  dualpipev.schedule.kind = ScheduleKind::kDualPipeV;
  TrainedTask deep = task;
  deep.config.num_layers = 4;
  const std::vector<double> of_deep = log_probabilities(deep, {});
  for (const LayoutCase& layout :
       {LayoutCase{.world = 2}, LayoutCase{.world = 4, .tp = 2, .ep = 2, .tpe = 2}, dualpipev}) {
    const bool is_deep = layout.pp > 1;
    const std::vector<double>& wanted = is_deep ? of_deep : one;
    const std::vector<double> found = log_probabilities(is_deep ? deep : task, layout);
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_LT(wanted[i], -5) << i;
      EXPECT_NEAR(found[i], wanted[i], 1e-5) << layout.name() << ", sample " << i;
    }
  }
}

// A model that is compared with itself has no reward, to the bit, and learns.
TEST(Preferences, BeginAtTheReference) {
  TrainedTask task = pair_task(/*is_deepseek=*/false);
  const PairDataset pairs(log_probabilities(task, {}));
  task.dataset = &pairs;
  task.preferences = {.beta = 0.5, .label_smoothing = 0};
  const TrainedOutcome outcome = train_in_layout(task, {});
  EXPECT_NEAR(outcome.steps[0].loss, std::log(2), 1e-6);
  EXPECT_EQ(outcome.steps[0].rewards->margins, 0);
  EXPECT_EQ(outcome.steps[0].rewards->chosen, 0);
  EXPECT_LT(outcome.validation_loss, std::log(2));
}

}  // namespace
}  // namespace moetron
