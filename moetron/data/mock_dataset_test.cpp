#include "moetron/data/mock_dataset.h"

#include <set>

#include <gtest/gtest.h>

namespace moetron {
namespace {

TEST(MockDataset, DrawsEveryTokenOfTheVocabularyByItsPlace) {
  const MockDataset data(7, "training", 20, 64, 10);
  EXPECT_EQ(data.size(), 20);
  EXPECT_EQ(data.sequence_length(), 64);
  std::set<int32_t> seen;
  for (int64_t i = 0; i < data.size(); ++i) {
    const TokenSample sample = data.get(i);
    ASSERT_EQ(sample.tokens.size(), 64u);
    ASSERT_EQ(sample.labels.size(), 64u);
    EXPECT_EQ(std::vector<int32_t>(sample.tokens.begin() + 1, sample.tokens.end()),
              std::vector<int32_t>(sample.labels.begin(), sample.labels.end() - 1));
    seen.insert(sample.tokens.begin(), sample.tokens.end());
    EXPECT_EQ(sample.positions.back(), 63);
    EXPECT_EQ(sample.document_bounds, (std::vector<int32_t>{0, 64}));
  }
  EXPECT_EQ(seen.size(), 10u);
  EXPECT_EQ(*seen.rbegin(), 9);
  EXPECT_EQ(MockDataset(7, "training", 5, 64, 10).get(3).tokens, data.get(3).tokens);
  EXPECT_NE(MockDataset(8, "training", 5, 64, 10).get(3).tokens, data.get(3).tokens);
  EXPECT_NE(MockDataset(7, "validation", 5, 64, 10).get(3).tokens, data.get(3).tokens);
  EXPECT_NE(data.get(0).tokens, data.get(1).tokens);
}

}  // namespace
}  // namespace moetron
