#include "moetron/run/sft_choices.h"

#include <gmock/gmock.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/config/test_args.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::StartsWith;

Options options_of(const std::string& more) {
  return parse("sft --load model --data-path chats.jsonl --save out " + more).options;
}

SftChoices choices_of(const std::string& more, const PackFacts& packs = {100, 300, 5, 1}) {
  SftChoices choices(options_of(more));
  choices.see_conversations({.num_conversations = 1000, .longest = 391, .max_positions = 4096});
  choices.see_packs(packs);
  return choices;
}

TEST(SftChoices, FollowFromTheData) {
  const SftChoices choices = choices_of("");
  const Options& o = choices.options();
  EXPECT_EQ(o.training.seq_length, 512);
  EXPECT_EQ(o.training.global_batch_size, 8);  // 100 sequences: 12 steps an epoch
  EXPECT_EQ(o.training.train_iters, 38);       // 300 of them
  EXPECT_EQ(o.training.eval_iters, 1);
  EXPECT_EQ(o.training.eval_interval, 13);
  EXPECT_EQ(o.checkpoint.save_interval, 13);
  EXPECT_EQ(o.optimizer.lr, 1e-5);
  EXPECT_EQ(o.optimizer.lr_warmup_fraction, 0.03);
  EXPECT_THAT(choices.reasons(),
              Contains("seq-length 512: the longest of 1000 conversations has 391 tokens"));
  validate(options_of(""), Command::kSft, 1);
}

TEST(SftChoices, LeaveWhatIsGivenAsItIs) {
  const SftChoices choices = choices_of(
      "--seq-length 300 --global-batch-size 6 --lr 3e-4 --lr-decay-style linear --train-iters 7 "
      "--eval-iters 0 --save-interval 0 --lr-warmup-iters 2 --eval-fraction 0 --keep-last 4");
  const Options& o = choices.options();
  EXPECT_EQ(o.training.seq_length, 300);
  EXPECT_EQ(o.training.global_batch_size, 6);
  EXPECT_EQ(o.training.train_iters, 7);
  EXPECT_EQ(choices.epochs(), 0);
  EXPECT_EQ(o.training.eval_iters, 0);
  EXPECT_EQ(o.checkpoint.save_interval, 0);
  EXPECT_EQ(o.checkpoint.keep_last, 4);
  EXPECT_EQ(o.optimizer.lr, 3e-4);
  EXPECT_EQ(o.optimizer.lr_decay_style, LrDecayStyle::kLinear);
  EXPECT_FALSE(o.optimizer.lr_warmup_fraction);
}

TEST(SftChoices, KeepToTheModelAndToRanks) {
  const SftChoices choices = choices_of(
      "--pipeline-model-parallel-size 2 --scheduler dualpipev --micro-batch-size 2", {9, 27, 0, 8});
  EXPECT_EQ(choices.options().training.global_batch_size,
            32);  // 4 data ranks, 4 micro-batches of 2
  EXPECT_EQ(choices.options().training.train_iters, 1);
  EXPECT_EQ(choices.options().training.eval_iters, 0);  // nothing is held out
  SftChoices long_ones(options_of(""));
  long_ones.see_conversations({.num_conversations = 9, .longest = 90000, .max_positions = 2000});
  EXPECT_EQ(long_ones.seq_length(), 2000);
  EXPECT_EQ(long_ones.conversations().eval_fraction, 0);
}

TEST(SftChoices, ContradictionsAreRefused) {
  EXPECT_THROW(SftChoices(options_of("--epochs 2 --train-iters 5")), ConfigError);
  EXPECT_THROW(validate(options_of("--min-lr 1"), Command::kSft, 1), ConfigError);
  EXPECT_FALSE(resolve_conversations(Options{}));
}

TEST(SftChoices, PairsKeepTogether) {
  const SftChoices choices = choices_of("--objective dpo", {200, 200, 10, 1});
  const Options& o = choices.options();
  EXPECT_TRUE(choices.conversations().pairs);
  EXPECT_FALSE(o.sft.packing);
  EXPECT_EQ(o.training.micro_batch_size, 2);
  EXPECT_EQ(o.training.global_batch_size, 16);  // 100 pairs, 8 of them a step
  EXPECT_EQ(o.training.train_iters, 13);
  EXPECT_EQ(o.sft.epochs, 1);
  EXPECT_DOUBLE_EQ(o.optimizer.lr, 1e-6);
  EXPECT_DOUBLE_EQ(choices_of("--objective dpo --lora-rank 4").options().optimizer.lr, 1e-5);
  EXPECT_EQ(choices_of("--objective dpo --epochs 2").epochs(), 2);
  for (const char* mistake : {"--packing", "--truncate", "--micro-batch-size 3",
                              "--global-batch-size 7 --micro-batch-size 2"})
    EXPECT_THROW(SftChoices(options_of(std::string("--objective dpo ") + mistake)), ConfigError)
        << mistake;
  EXPECT_FALSE(choices_of("").conversations().pairs);
}

TEST(SftChoices, PaddingHasItsOwnLength) {
  const SftChoices padded = choices_of("--no-packing --max-padding-length 700 --seq-length 900");
  EXPECT_EQ(padded.seq_length(), 700);
}

}  // namespace
}  // namespace moetron
