#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/temporary_folder.h"
#include "moetron/data/conversation_cache.h"
#include "moetron/data/conversation_dataset.h"
#include "moetron/data/conversation_set.h"
#include "moetron/data/pack_order.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Conversation i of a file has tokens base + i, base + i + 1, ..., and its last half is trained.
int32_t length_of(int64_t i) {
  return static_cast<int32_t>(4 + i * 7 % 23);
}

void write_cache(const fs::path& folder, int64_t count, int32_t base = 0) {
  ConversationCacheWriter writer(folder, 1000);
  for (int64_t i = 0; i < count; ++i) {
    std::vector<int32_t> tokens(static_cast<size_t>(length_of(i)));
    std::iota(tokens.begin(), tokens.end(), base + static_cast<int32_t>(i));
    std::vector<float> weights(tokens.size(), 0);
    std::fill(weights.begin() + length_of(i) / 2, weights.end(), i % 3 == 0 ? 0.5f : 1.0f);
    writer.add(tokens, weights, static_cast<int32_t>(2 * i + 1));
  }
  writer.commit({{"name", folder.filename().string()}});
}

class Conversations : public ::testing::Test {
 protected:
  std::shared_ptr<const ConversationSet> open(const std::vector<std::pair<int64_t, double>>& files,
                                              bool pairs = false) {
    std::vector<ConversationFile> list;
    for (const auto& [count, weight] : files) {
      const fs::path path = folder_.path() / ("file" + std::to_string(list.size()));
      write_cache(path, count, static_cast<int32_t>(100 * list.size()));
      list.push_back({std::make_shared<ConversationCache>(path), weight});
    }
    return std::make_shared<ConversationSet>(std::move(list), pairs);
  }

  TemporaryFolder folder_{"conversations"};
};

TEST_F(Conversations, CacheGivesBackWhatWasWritten) {
  write_cache(folder_.path() / "one", 9, 30);
  const ConversationCache cache(folder_.path() / "one");
  ASSERT_EQ(cache.size(), 9);
  EXPECT_EQ(cache.facts(), Json({{"name", "one"}}));
  for (int64_t i = 0; i < 9; ++i) {
    EXPECT_EQ(cache.length(i), length_of(i));
    EXPECT_EQ(cache.line(i), 2 * i + 1);
    EXPECT_EQ(cache.first_target(i), length_of(i) / 2);
    std::vector<int32_t> tokens(static_cast<size_t>(length_of(i)));
    std::vector<float> weights(tokens.size());
    cache.get(i, tokens, weights);
    EXPECT_EQ(tokens.back(), 30 + i + length_of(i) - 1);
    EXPECT_EQ(weights.front(), 0);
    EXPECT_EQ(weights.back(), i % 3 == 0 ? 0.5f : 1.0f);
  }
}

TEST_F(Conversations, DamageIsFoundAndMended) {
  const fs::path path = folder_.path() / "one";
  write_cache(path, 9);
  for (const char* file : {"tokens.bin", "weights.bin", "notes.idx"}) {
    std::string text = read_file(path / file);
    text[text.size() / 2] ^= 1;
    write_file(path / file, text);
    EXPECT_THROW(ConversationCache{path}, InputError) << file;
    write_cache(path, 9);  // replaces what is damaged
    EXPECT_EQ(ConversationCache(path).size(), 9);
  }
  fs::resize_file(path / "tokens.bin", 10);
  EXPECT_THROW(ConversationCache{path}, InputError);
  fs::remove(path / "conversations.json");
  EXPECT_THROW(ConversationCache{path}, InputError);
}

TEST_F(Conversations, WithoutACommitNothingIsLeft) {
  {
    ConversationCacheWriter writer(folder_.path() / "one", 1000);
    writer.add(std::vector<int32_t>{1, 2}, std::vector<float>{0, 1}, 1);
  }
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(Conversations, OfTwoWritersAtOnceOneIsKept) {
  const fs::path path = folder_.path() / "one";
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) writers.emplace_back([&] { write_cache(path, 40); });
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(ConversationCache(path).size(), 40);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()), 1);
}

TEST_F(Conversations, HeldOutOnesAreNeverTrained) {
  const auto set = open({{100, 0}, {60, 0}});
  const ConversationSplit split =
      split_conversations(*set, {.seed = 5, .eval_fraction = 0.1, .sequence_length = 64});
  EXPECT_EQ(split.held_out.size(), 16u);
  EXPECT_EQ(split.training.size(), 144u);
  std::set<int64_t> all(split.training.begin(), split.training.end());
  all.insert(split.held_out.begin(), split.held_out.end());
  EXPECT_EQ(all.size(), 160u);
  const auto other =
      split_conversations(*set, {.seed = 6, .eval_fraction = 0.1, .sequence_length = 64});
  EXPECT_NE(other.held_out, split.held_out);
  // A shorter sequence moves none from one side to the other.
  const auto shorter =
      split_conversations(*set, {.seed = 5, .eval_fraction = 0.1, .sequence_length = 20});
  EXPECT_FALSE(shorter.too_long.empty());
  EXPECT_TRUE(std::includes(split.held_out.begin(), split.held_out.end(), shorter.held_out.begin(),
                            shorter.held_out.end()));
}

TEST_F(Conversations, LongOnesAreLeftOutOrCut) {
  const auto set = open({{23, 0}});
  const auto dropped = split_conversations(*set, {.sequence_length = 12});
  const auto cut = split_conversations(*set, {.sequence_length = 12, .truncates = true});
  for (int64_t i = 0; i < 23; ++i) {
    const bool is_long = length_of(i) > 12, is_useless = is_long && length_of(i) / 2 >= 12;
    const auto has = [&](const std::vector<int64_t>& list) {
      return std::find(list.begin(), list.end(), i) != list.end();
    };
    EXPECT_EQ(has(dropped.too_long), is_long);
    EXPECT_EQ(has(cut.too_long), is_useless);
    if (has(cut.training)) {
      EXPECT_LE(cut.lengths[static_cast<size_t>(i)], 12);
    }
  }
}

TEST_F(Conversations, PairsStayTogether) {
  const auto set = open({{80, 0}, {40, 0}}, /*pairs=*/true);
  EXPECT_EQ(set->num_records(), 60);
  const auto split = split_conversations(*set, {.eval_fraction = 0.3, .sequence_length = 20});
  EXPECT_EQ(split.training.size() + split.held_out.size() + split.too_long.size(), 60u);
  for (const auto* list : {&split.training, &split.held_out, &split.too_long}) {
    EXPECT_FALSE(list->empty());
    for (const int64_t first : *list) {
      EXPECT_EQ(first % 2, 0);
      const auto place = static_cast<size_t>(first);
      const bool fits = set->lengths()[place] <= 20 && set->lengths()[place + 1] <= 20;
      EXPECT_EQ(list != &split.too_long, fits) << "either side may be too long";
    }
  }
  PackOrder order(*set, split, {.sequence_length = 20, .packs = false, .num_sides = 2, .seed = 9});
  order.extend_to_epochs(2);
  const auto per_epoch = static_cast<int64_t>(2 * split.training.size());
  ASSERT_EQ(order.packs().size(), 2 * per_epoch);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < per_epoch; i += 2) {
    ASSERT_EQ(order.packs()[i].size(), 1u);
    seen.insert(order.packs()[i].front());
    EXPECT_EQ(order.packs()[i + 1].front(), order.packs()[i].front() + 1);
  }
  EXPECT_TRUE(std::ranges::equal(seen, split.training));
  // What a reference says of each comes with its sample.
  auto references = std::make_shared<std::vector<double>>(120, 0.0);
  std::iota(references->begin(), references->end(), -120.0);
  const ConversationDataset dataset(set, split.lengths, order.packs().first(per_epoch + 2), 20,
                                    references);
  for (const int64_t i : {0, 1, 7})
    EXPECT_EQ(dataset.get(i).reference_log_probability, order.packs()[i].front() - 120.0);
}

TEST_F(Conversations, EveryEpochHasEachOnce) {
  const auto set = open({{150, 0}, {50, 0}});
  const auto split = split_conversations(*set, {.eval_fraction = 0.05, .sequence_length = 64});
  const PackSettings settings{.sequence_length = 64, .window = 37, .seed = 9};
  PackOrder order(*set, split, settings);
  order.extend_to_epochs(3);
  std::vector<std::vector<int64_t>> epochs(3);
  int64_t pack = 0;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    auto& seen = epochs[static_cast<size_t>(epoch)];
    for (; pack < order.epoch_end(epoch); ++pack)
      seen.insert(seen.end(), order.packs()[pack].begin(), order.packs()[pack].end());
  }
  EXPECT_NE(epochs[0], epochs[1]);
  for (auto& seen : epochs) {
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, split.training);
  }
  // The same packs, whoever asks for how many.
  PackOrder again(*set, split, settings);
  again.extend_to_packs(order.epoch_end(0) + 1);
  for (int64_t i = 0; i < again.packs().size(); ++i)
    EXPECT_TRUE(std::ranges::equal(again.packs()[i], order.packs()[i])) << i;
}

TEST_F(Conversations, WeightsAreSharesOfAnEpoch) {
  const auto set = open({{30, 0.75}, {90, 0.25}});
  const auto split = split_conversations(*set, {.sequence_length = 64});
  std::map<int64_t, int> counts;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    int first = 0;
    for (const int64_t one : epoch_conversations(*set, split.training, 4, epoch)) {
      ++counts[one];
      if (one < 30) ++first;
    }
    EXPECT_EQ(first, 90);  // of 120
  }
  for (const auto& [one, count] : counts) EXPECT_EQ(count, one < 30 ? 9 : 1) << one;
  EXPECT_EQ(counts.size(), 120u);  // three times thirty of ninety: all of them once
}

TEST_F(Conversations, SamplesAreDocumentsWithTheirOwnLabels) {
  const auto set = open({{40, 0}});
  const auto split = split_conversations(*set, {.sequence_length = 50});
  PackOrder order(*set, split, {.sequence_length = 50, .seed = 2});
  order.extend_to_epochs(1);
  const ConversationDataset data(set, split.lengths, order.packs().first(order.packs().size() + 1),
                                 50);
  std::vector<int32_t> seen;
  for (int64_t index = 0; index < data.size(); ++index) {
    const TokenSample sample = data.get(index);
    const auto& bounds = sample.document_bounds;
    for (size_t d = 0; d + 1 < bounds.size(); ++d) {
      const auto begin = static_cast<size_t>(bounds[d]), end = static_cast<size_t>(bounds[d + 1]);
      const int32_t number = sample.tokens[begin], length = static_cast<int32_t>(end - begin);
      seen.push_back(number);
      EXPECT_EQ(length, length_of(number));
      for (size_t i = begin; i < end; ++i) {
        const auto place = static_cast<int32_t>(i - begin);
        EXPECT_EQ(sample.positions[i], place);
        EXPECT_EQ(sample.tokens[i], number + place);
        const bool is_trained = place + 1 < length && place + 1 >= length / 2;
        EXPECT_EQ(sample.loss_weights[i], !is_trained ? 0.0f : number % 3 == 0 ? 0.5f : 1.0f);
        if (is_trained) {
          EXPECT_EQ(sample.labels[i], number + place + 1);
        }
      }
    }
    for (size_t i = static_cast<size_t>(bounds.back()); i < 50; ++i)
      EXPECT_EQ(sample.loss_weights[i], 0);
  }
  std::sort(seen.begin(), seen.end());
  ASSERT_EQ(seen.size(), 40u);
  EXPECT_EQ(seen.front(), 0);
  EXPECT_EQ(seen.back(), 39);
  EXPECT_EQ(data.get(data.size() - 1).document_bounds, std::vector<int32_t>{0});
}

TEST_F(Conversations, WithoutPackingEachHasASequence) {
  const auto set = open({{40, 0}});
  const auto split = split_conversations(*set, {.sequence_length = 50});
  PackOrder order(*set, split, {.sequence_length = 50, .packs = false, .seed = 2});
  order.extend_to_epochs(1);
  EXPECT_EQ(order.packs().size(), 40);
}

}  // namespace
}  // namespace moetron
