#include "moetron/data/packing.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/random.h"

namespace moetron {
namespace {

// Of a log-normal kind, at most `longest`.
std::vector<int32_t> random_lengths(int64_t count, int32_t longest, uint64_t seed) {
  std::vector<float> normal(static_cast<size_t>(count));
  RandomStream(seed, 0, "lengths").fill_normal(normal, 0, 1);
  std::vector<int32_t> lengths;
  for (const float value : normal)
    lengths.push_back(std::clamp(static_cast<int32_t>(60 * std::exp(value)), 2, longest));
  return lengths;
}

std::vector<int64_t> numbers(int64_t count) {
  std::vector<int64_t> all(static_cast<size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

int64_t tokens_of(std::span<const int64_t> pack, const std::vector<int32_t>& lengths) {
  int64_t tokens = 0;
  for (const int64_t one : pack) tokens += lengths[static_cast<size_t>(one)];
  return tokens;
}

TEST(Packing, EachOnceWithinTheCapacity) {
  const auto lengths = random_lengths(5000, 512, 3);
  const PackList packs = pack_first_fit_decreasing(numbers(5000), lengths, 512);
  std::multiset<int64_t> seen;
  int64_t total = 0;
  for (int64_t i = 0; i < packs.size(); ++i) {
    EXPECT_LE(tokens_of(packs[i], lengths), 512);
    EXPECT_FALSE(packs[i].empty());
    seen.insert(packs[i].begin(), packs[i].end());
    total += tokens_of(packs[i], lengths);
  }
  const auto all = numbers(5000);
  EXPECT_TRUE(std::equal(seen.begin(), seen.end(), all.begin(), all.end()));
  EXPECT_GT(static_cast<double>(total), 0.99 * 512 * static_cast<double>(packs.size()));
}

// The definition, in the slowest way.
TEST(Packing, IsFirstFitDecreasing) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const auto lengths = random_lengths(40, 200, seed);
    std::vector<int64_t> sorted = numbers(40);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int64_t a, int64_t b) {
      return lengths[static_cast<size_t>(a)] > lengths[static_cast<size_t>(b)];
    });
    std::vector<std::vector<int64_t>> wanted;
    for (const int64_t one : sorted) {
      auto pack = std::find_if(wanted.begin(), wanted.end(), [&](const auto& some) {
        return tokens_of(some, lengths) + lengths[static_cast<size_t>(one)] <= 200;
      });
      if (pack == wanted.end()) pack = wanted.insert(wanted.end(), std::vector<int64_t>());
      pack->push_back(one);
    }
    const PackList packs = pack_first_fit_decreasing(numbers(40), lengths, 200);
    ASSERT_EQ(packs.size(), static_cast<int64_t>(wanted.size()));
    for (int64_t i = 0; i < packs.size(); ++i)
      EXPECT_EQ(std::vector(packs[i].begin(), packs[i].end()), wanted[static_cast<size_t>(i)]);
  }
}

TEST(Packing, WhatIsTooLongIsAMistakeOfTheCaller) {
  EXPECT_THROW(pack_first_fit_decreasing(numbers(1), std::vector<int32_t>{9}, 8), InternalError);
}

TEST(Packing, RanksOfABatchHaveAboutAsMuchToDo) {
  const auto lengths = random_lengths(4000, 2048, 11);
  const PackList packs = pack_first_fit_decreasing(numbers(4000), lengths, 2048);
  for (const BatchCut& cut : {BatchCut{64, 1, 8}, BatchCut{64, 4, 4}, BatchCut{32, 2, 2}}) {
    ASSERT_GE(packs.size(), cut.global_batch_size);
    std::vector<double> costs;
    for (int64_t i = 0; i < cut.global_batch_size; ++i)
      costs.push_back(pack_cost(packs[i], lengths));
    const std::vector<int64_t> order = balance_batch(costs, cut);
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    EXPECT_EQ(sorted, numbers(cut.global_batch_size));
    const auto spread = [&](const std::vector<int64_t>& places) {
      std::vector<double> sums(static_cast<size_t>(cut.ranks), 0);
      for (size_t i = 0; i < places.size(); ++i) {
        const auto rank = i / static_cast<size_t>(cut.micro_batch_size) % sums.size();
        sums[rank] += costs[static_cast<size_t>(places[i])];
      }
      const auto [least, most] = std::minmax_element(sums.begin(), sums.end());
      return *most / *least - 1;
    };
    EXPECT_LT(spread(order), 0.01);
    EXPECT_LE(spread(order), spread(numbers(cut.global_batch_size)));
  }
}

TEST(Packing, BatchesKeepTheirPacks) {
  const auto lengths = random_lengths(300, 256, 5);
  const PackList packs = pack_first_fit_decreasing(numbers(300), lengths, 256).first(30);
  const PackList balanced = balance_packs(packs, 3, lengths, {8, 1, 4});
  ASSERT_EQ(balanced.size(), 30);
  const auto set_of = [](const PackList& list, int64_t begin, int64_t end) {
    std::set<std::vector<int64_t>> some;
    for (int64_t i = begin; i < end; ++i) some.insert({list[i].begin(), list[i].end()});
    return some;
  };
  for (const auto& [begin, end] : {std::pair(0, 3), {3, 11}, {11, 19}, {19, 27}, {27, 30}})
    EXPECT_EQ(set_of(balanced, begin, end), set_of(packs, begin, end)) << begin;
}

TEST(Packing, MissingPacksAreEmpty) {
  PackList packs;
  packs.add(std::vector<int64_t>{4, 2});
  const PackList filled = packs.first(3);
  EXPECT_EQ(filled.size(), 3);
  EXPECT_EQ(filled[0].size(), 2u);
  EXPECT_TRUE(filled[1].empty());
  EXPECT_TRUE(filled[2].empty());
}

}  // namespace
}  // namespace moetron
