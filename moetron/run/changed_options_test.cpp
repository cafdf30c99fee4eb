#include "moetron/run/changed_options.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/config/options.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(ChangedOptions, AreListedAndTheWeightyOnesNeedAWord) {
  Options options;
  options.training.train_iters = 10;
  const Json before = options_record(options);
  EXPECT_THAT(changed_options(before, options_record(options)), IsEmpty());
  options.training.train_iters = 20;
  options.runtime.seed = 7;
  options.data.split = {1, 1};
  options.checkpoint.accept_changes = {"all"};
  const auto changes = changed_options(before, options_record(options));
  EXPECT_EQ(change_table(changes),
            "  option       before            now\n"
            "  train-iters  10                20\n"
            "  split        [969.0,30.0,1.0]  [1.0,1.0]\n"
            "  seed         1234              7");
  EXPECT_THAT(not_accepted(changes, {}), ElementsAre("split", "seed"));
  EXPECT_THAT(not_accepted(changes, {"seed"}), ElementsAre("split"));
  EXPECT_THAT(not_accepted(changes, {"all"}), IsEmpty());
  Json older = before;
  older["data"].erase("split");  // an option that it did not know
  EXPECT_THAT(not_accepted(changed_options(older, options_record(options)), {}),
              ElementsAre("seed"));
}

TEST(ChangedOptions, TheRecordedLearningRateIsFollowed) {
  Options options;
  options.training.train_iters = 10;
  options.optimizer.lr = 1e-3;
  options.optimizer.lr_decay_style = LrDecayStyle::kCosine;
  const auto recorded = recorded_learning_rate(options_record(options));
  ASSERT_TRUE(recorded.has_value());
  EXPECT_EQ(*recorded, resolve_learning_rate(options));
  EXPECT_EQ(recorded->decay_iters, 10);
  EXPECT_FALSE(recorded_learning_rate({{"optimizer", {{"lr-decay-style", "zigzag"}}}}).has_value());
}

TEST(ChangedOptions, AcceptedNamesAreNamesOfOptions) {
  Options options;
  options.checkpoint.accept_changes = {"seed,seq_length", "lr"};
  EXPECT_THAT(resolve_start(options).accepted_changes, ElementsAre("seed", "seq-length", "lr"));
  options.checkpoint.accept_changes = {"sead"};
  EXPECT_THROW(resolve_start(options), ConfigError);
}

}  // namespace
}  // namespace moetron
