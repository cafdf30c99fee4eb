// In which order samples come where one index is not all, and what is known of data beforehand.
#include "moetron/data/sample_passes.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <numeric>
#include <set>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/data/blend.h"
#include "moetron/data/token_check.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Counts = std::vector<int64_t>;

class SamplePassesTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // Documents of 10 tokens, which count up from `first`.
  std::string write(const std::string& name, int documents, int32_t first = 0) {
    const std::string prefix = (folder_ / name).string();
    IndexedDatasetWriter writer(prefix, TokenType::kInt32);
    for (int d = 0; d < documents; ++d) {
      std::vector<int32_t> tokens(10);
      std::iota(tokens.begin(), tokens.end(), first + 10 * d);
      writer.add_sequence(tokens);
      writer.end_document();
    }
    writer.commit();
    return prefix;
  }

  static std::unique_ptr<TokenDataset> open(std::vector<std::string> prefixes, const Counts& counts,
                                            GptDatasetSettings settings = {}) {
    settings.sequence_length = 10;
    auto splits = build_gpt_datasets({std::move(prefixes), {}}, "1", {counts, {}, {}}, settings);
    return std::move(splits[0]);
  }

  // The first label of each sample of [begin, end): the label after a document's first token, or
  // a neighbour, is in one sample of an epoch alone.
  static std::vector<int32_t> labels(const TokenDataset& dataset, int64_t begin, int64_t end) {
    std::vector<int32_t> found;
    for (int64_t i = begin; i < end; ++i) found.push_back(dataset.get(i).labels[0]);
    return found;
  }
  static size_t num_distinct(const std::vector<int32_t>& values) {
    return std::set<int32_t>(values.begin(), values.end()).size();
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_passes_" + std::to_string(::getpid()));
};

TEST_F(SamplePassesTest, ALongerRunFinishesTheIndexBeforeItBeginsAnother) {
  const std::string prefix = write("a", 50);
  const auto first = open({prefix}, {30});
  ASSERT_EQ(first->size(), 49);
  const auto longer = open({prefix}, {30, 80});
  EXPECT_GE(longer->size(), 80);
  EXPECT_EQ(labels(*longer, 0, 49), labels(*first, 0, 49));
  EXPECT_EQ(num_distinct(labels(*longer, 0, 49)), 49u);  // all before any comes again
  EXPECT_EQ(num_distinct(labels(*longer, 49, 98)), 49u);
  EXPECT_NE(labels(*longer, 49, 98), labels(*first, 0, 49));  // in another order
  // Megatron's way, an index of the new length from the start, repeats what was seen.
  EXPECT_LT(num_distinct([&] {
              std::vector<int32_t> seen = labels(*first, 0, 30);
              const auto anew = labels(*open({prefix}, {80}), 30, 49);
              seen.insert(seen.end(), anew.begin(), anew.end());
              return seen;
            }()),
            49u);
  // A shorter run, and one that the index suffices for, change nothing.
  EXPECT_EQ(labels(*open({prefix}, {30, 40}), 0, 49), labels(*first, 0, 49));
}

TEST_F(SamplePassesTest, BlendsContinueDatasetByDataset) {
  const std::string a = write("a", 50), b = write("b", 50, 100000);
  const auto blend = [&](const Counts& counts) {
    auto splits =
        build_gpt_datasets({{a, b}, {1, 1}}, "1", {counts, {}, {}}, {.sequence_length = 10});
    return std::move(splits[0]);
  };
  const auto longer = blend({40, 160});
  EXPECT_EQ(labels(*longer, 0, 40), labels(*blend({40}), 0, 40));
  EXPECT_EQ(num_distinct(labels(*longer, 0, 98)), 98u);
}

TEST_F(SamplePassesTest, ABlendWithoutWeightsBeginsAgain) {
  const std::string a = write("a", 50), b = write("b", 30, 100000);
  const auto epoch = open({a, b}, {70});
  EXPECT_EQ(epoch->size(), 70);
  const auto many = open({a, b}, {500});
  ASSERT_EQ(many->size(), 500);
  const std::vector<int32_t> found = labels(*many, 0, 500);
  const auto from_b =
      std::count_if(found.begin(), found.end(), [](int32_t l) { return l >= 100000; });
  EXPECT_NEAR(static_cast<double>(from_b), 500.0 * 29 / 78, 1);
}

TEST_F(SamplePassesTest, EndlessRunsNeedLittleMemory) {
  const std::string a = write("a", 50), b = write("b", 30, 100000);
  const GptDatasetSettings small = {.limits = {.epochs = 3, .elements = 100}};
  const int64_t many = 1'000'000'000'000;
  const auto endless = open({a}, {many}, small);
  EXPECT_GE(endless->size(), many);
  // As many epochs as the limit allows lie in one index, and the first is that of a run of its own.
  const auto three = open({a}, {149});
  EXPECT_EQ(labels(*endless, 0, 149), labels(*three, 0, 149));
  EXPECT_NE(labels(*endless, 149, 298), labels(*three, 0, 149));
  endless->get(many - 1);
  endless->get(0);
  EXPECT_EQ(open({a, b}, {many}, small)->get(1000).tokens.size(), 10u);
}

TEST_F(SamplePassesTest, LaterPassesComeFromTheCacheOrFromMemory) {
  const std::string prefix = write("a", 50);
  GptDatasetSettings cached = {.cache_folder = folder_ / "cache"};
  const auto memory = open({prefix}, {30, 80});
  const auto built = open({prefix}, {30, 80}, cached);
  cached.build_cache = false;
  const auto mapped = open({prefix}, {30, 80}, cached);
  for (const auto* dataset : {&built, &mapped})
    EXPECT_EQ(labels(**dataset, 0, 98), labels(*memory, 0, 98));
  size_t num_indices = 0;
  for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
    num_indices += entry.path().string().ends_with("-description.json") ? 1 : 0;
  EXPECT_EQ(num_indices, 2u);
}

TEST_F(SamplePassesTest, TokensAreCheckedBeforehandAndOnce) {
  const IndexedDataset data(write("a", 1000));  // tokens up to 9999
  const SequenceRange all = {0, 1000};
  const std::chrono::milliseconds time(60000);
  EXPECT_TRUE(check_tokens(data, all, 10000, {}, time));
  int found = 0;
  for (int64_t part = 0; part < 3; ++part) {
    try {
      check_tokens(data, all, 9999, {.part = part, .num_parts = 3, .num_threads = 2}, time);
    } catch (const InputError& error) {
      EXPECT_THAT(error.what(),
                  ::testing::HasSubstr("a.bin holds the token 9999 in sequence 999, outside the "
                                       "vocabulary of 9999"));
      ++found;
    }
  }
  EXPECT_EQ(found, 1);  // of three ranks one has it in its share
  EXPECT_TRUE(check_tokens(data, {0, 999}, 9999, {}, time));
  EXPECT_FALSE(check_tokens(data, all, 10000, {}, std::chrono::milliseconds(-1)));  // cut short

  const fs::path cache = folder_ / "cache";
  EXPECT_FALSE(tokens_were_checked(data, all, 10000, cache));
  note_checked_tokens(data, all, 10000, cache);
  EXPECT_TRUE(tokens_were_checked(data, all, 10000, cache));
  EXPECT_FALSE(tokens_were_checked(data, all, 9999, cache));
  EXPECT_FALSE(tokens_were_checked(data, {0, 5}, 10000, cache));
  fs::last_write_time(folder_ / "a.bin", fs::file_time_type::clock::now() + std::chrono::hours(1));
  EXPECT_FALSE(tokens_were_checked(data, all, 10000, cache));  // the data was written again
}

}  // namespace
}  // namespace moetron
