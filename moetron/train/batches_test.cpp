// The record of a step's micro-batches, from the samples of a dataset.
#include "moetron/train/batches.h"

#include <functional>
#include <numeric>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/comm/thread_ranks.h"
#include "moetron/data/token_dataset.h"
#include "moetron/nn/loss.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

constexpr int64_t kLength = 6;

// Sample i holds the tokens 10 i, 10 i + 1, ...; what else it holds may be changed.
class NumberedDataset final : public TokenDataset {
 public:
  using Change = std::function<void(int64_t index, TokenSample& sample)>;
  explicit NumberedDataset(Change change = {}) : change_(std::move(change)) {}
  int64_t size() const override { return 1000; }
  int64_t sequence_length() const override { return kLength; }
  TokenSample get(int64_t index) const override {
    TokenSample sample;
    sample.tokens.resize(kLength);
    std::iota(sample.tokens.begin(), sample.tokens.end(), static_cast<int32_t>(10 * index));
    sample.labels.resize(kLength);
    std::iota(sample.labels.begin(), sample.labels.end(), sample.tokens[0] + 1);
    sample.loss_weights.assign(kLength, 1);
    sample.positions.resize(kLength);
    std::iota(sample.positions.begin(), sample.positions.end(), 0);
    sample.document_bounds = {0, kLength};
    if (change_) change_(index, sample);
    return sample;
  }

 private:
  Change change_;
};

StepBatch batch_of_one_rank(const NumberedDataset& dataset, const BatchSettings& settings) {
  StepBatch batch;
  run_ranks(1, [&](Communicator& world) {
    Mesh mesh(world, parallel_sizes(1, 1, 1, 1, 1));
    batch = load_step_batch(dataset, 0, settings, mesh, /*training=*/true);
  });
  return batch;
}

std::vector<int64_t> first_tokens(const MicroBatch& micro_batch) {
  std::vector<int64_t> first;
  for (int64_t row = 0; row < micro_batch.tokens.size(0); ++row) {
    first.push_back(micro_batch.tokens[row][0].item<int64_t>());
  }
  return first;
}

// Micro-batch k of rank r: consumed + [(k * ranks + r) * m, + m).
TEST(StepBatch, DataParallelRanksTakeTurns) {
  run_ranks(2, [](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 1, 1, 1, 1));
    const StepBatch batch = load_step_batch(NumberedDataset(), 100, {2, 8}, mesh, false);
    ASSERT_EQ(batch.micro_batches.size(), 2u);
    using Tokens = std::vector<int64_t>;
    const int64_t rank = world.rank();
    EXPECT_EQ(first_tokens(batch.micro_batches[0]), (Tokens{1000 + 20 * rank, 1010 + 20 * rank}));
    EXPECT_EQ(first_tokens(batch.micro_batches[1]), (Tokens{1040 + 20 * rank, 1050 + 20 * rank}));
    EXPECT_FALSE(batch.micro_batches[0].training);
    EXPECT_EQ(batch.num_tokens, 8 * kLength);
  });
}

TEST(StepBatch, PlainSamplesNeedNoMoreThanTokensAndLabels) {
  const StepBatch batch = batch_of_one_rank(NumberedDataset(), {1, 1});
  const MicroBatch& made = batch.micro_batches.at(0);
  EXPECT_TRUE(at::equal(made.labels, made.tokens + 1));
  EXPECT_TRUE(at::equal(made.positions, at::arange(kLength).unsqueeze(0)));
  EXPECT_FALSE(made.loss_weights.defined());
  EXPECT_FALSE(made.documents.defined());
  EXPECT_FALSE(made.padding.defined());
  EXPECT_TRUE(made.training);
  EXPECT_EQ(made.num_real_tokens, kLength);
  EXPECT_EQ(batch.mean_length(), kLength);
}

// The divisor is the sum of the weights over all ranks and micro-batches, in every record.
TEST(StepBatch, WeightsOfAllRanksDivideTheLoss) {
  const NumberedDataset weighted([](int64_t index, TokenSample& sample) {
    sample.loss_weights[0] = 0;
    sample.loss_weights[1] = index % 2 == 0 ? 0.25f : 1.0f;
  });
  const double of_even = 0.25 + 4, of_odd = 1 + 4;
  run_ranks(2, [&](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 1, 1, 1, 1));
    const StepBatch batch = load_step_batch(weighted, 0, {1, 4}, mesh, true);
    EXPECT_DOUBLE_EQ(batch.divisor, 2 * of_even + 2 * of_odd);
    for (const MicroBatch& made : batch.micro_batches) {
      EXPECT_DOUBLE_EQ(made.d_loss, 1 / batch.divisor);
      EXPECT_DOUBLE_EQ(made.d_aux, 1.0 / (4 * kLength));
      EXPECT_EQ(made.labels[0][0].item<int64_t>(), kIgnoredLabel);
      // Weights of 0 and 1 are in the labels already.
      EXPECT_EQ(made.loss_weights.defined(), world.rank() == 0);
    }
  });
}

// Bounds lie one sequence behind the other; what follows the last of a sequence is padding.
TEST(StepBatch, DocumentsAndPaddingKeepTheirPlaces) {
  const NumberedDataset packed([](int64_t index, TokenSample& sample) {
    sample.document_bounds =
        index == 0 ? std::vector<int32_t>{0, 2, 5} : std::vector<int32_t>{0, 6};
    if (index == 0) sample.loss_weights[5] = 0;
  });
  const StepBatch batch = batch_of_one_rank(packed, {2, 2});
  const MicroBatch& made = batch.micro_batches.at(0);
  const std::vector<int64_t> wanted{0, 2, 5, 6, 12};
  EXPECT_EQ(made.documents.on_host, wanted);
  EXPECT_TRUE(at::equal(made.documents.on_device.to(at::kLong), at::tensor(wanted)));
  EXPECT_EQ(made.num_real_tokens, 11);
  EXPECT_EQ(batch.num_tokens, 11);
  EXPECT_DOUBLE_EQ(batch.mean_length(), (2 * 2 + 3 * 3 + 6 * 6) / 11.0);
  EXPECT_EQ(batch.divisor, 11);
  at::Tensor padding = at::zeros({12}, at::kBool);
  padding[5] = true;
  EXPECT_TRUE(at::equal(made.padding, padding));
}

// Each tensor-parallel rank knows which rows of its slice are padding; all have the same tokens.
TEST(StepBatch, ASliceOfTokensKnowsItsPadding) {
  const NumberedDataset short_ones([](int64_t, TokenSample& sample) {
    sample.document_bounds = {0, 2};
    std::fill(sample.loss_weights.begin() + 2, sample.loss_weights.end(), 0.0f);
  });
  run_ranks(2, [&](Communicator& world) {
    Mesh mesh(world, parallel_sizes(2, 2, 1, 1, 1));
    const StepBatch batch = load_step_batch(short_ones, 0, {1, 1}, mesh, true);
    const MicroBatch& made = batch.micro_batches.at(0);
    EXPECT_EQ(made.tokens.numel(), kLength);
    EXPECT_EQ(made.layout.num_local(), kLength / 2);
    EXPECT_EQ(made.padding.sum().item<int64_t>(), world.rank() == 0 ? 1 : 3);
    EXPECT_EQ(batch.num_tokens, 2);
  });
}

TEST(StepBatch, RefusesSamplesThatContradictThemselves) {
  using Change = std::function<void(TokenSample&)>;
  const std::vector<Change> changes = {
      [](TokenSample& s) { s.document_bounds.clear(); },
      [](TokenSample& s) {
        s.document_bounds = {1, kLength};
      },
      [](TokenSample& s) {
        s.document_bounds = {0, 3, 3, kLength};
      },
      [](TokenSample& s) {
        s.document_bounds = {0, kLength + 1};
      },
      [](TokenSample& s) {
        s.document_bounds = {0, kLength - 1};
      },  // its padding has a label
      [](TokenSample& s) { s.loss_weights[3] = -1; },
      [](TokenSample& s) { s.loss_weights[3] = NAN; },
  };
  for (const Change& change : changes) {
    const NumberedDataset broken([&](int64_t, TokenSample& sample) { change(sample); });
    EXPECT_THROW(batch_of_one_rank(broken, {1, 1}), InternalError);
  }
}

}  // namespace
}  // namespace moetron
