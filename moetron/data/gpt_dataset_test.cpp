#include "moetron/data/gpt_dataset.h"

#include <filesystem>
#include <fstream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/data/blend.h"
#include "moetron/data/sampler.h"
#include "moetron/formats/damage_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class GptDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // Documents of the given lengths; tokens count up from `first`.
  std::string write(const std::string& name, const std::vector<int>& lengths, int32_t first = 0) {
    const std::string prefix = (folder_ / name).string();
    IndexedDatasetWriter writer(prefix, TokenType::kInt32);
    for (const int length : lengths) {
      std::vector<int32_t> tokens(static_cast<size_t>(length));
      std::iota(tokens.begin(), tokens.end(), first);
      first += length;
      writer.add_sequence(tokens);
      writer.end_document();
    }
    writer.commit();
    return prefix;
  }

  static GptDataset open(const std::string& prefix, int64_t num_samples,
                         const GptDatasetSettings& settings) {
    auto source = std::make_shared<const IndexedDataset>(prefix);
    const SequenceRange all = {0, source->num_sequences()};
    const std::vector<int64_t> counts = {num_samples};
    return GptDataset(std::move(source), all, counts, settings);
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_gpt_" + std::to_string(::getpid()));
};

TEST_F(GptDatasetTest, ShuffleIsNumPys) {
  std::vector<int32_t> small(10);
  std::iota(small.begin(), small.end(), 0);
  NumpyRandom(0).shuffle(std::span(small));
  EXPECT_EQ(small, (std::vector<int32_t>{2, 8, 4, 9, 1, 6, 7, 3, 0, 5}));
  std::vector<int64_t> large(100000);
  std::iota(large.begin(), large.end(), 0);
  NumpyRandom(1234).shuffle(std::span(large));
  int64_t weighted = 0;
  for (size_t i = 0; i < large.size(); ++i) weighted += large[i] * static_cast<int64_t>(i);
  EXPECT_EQ(large[0], 13504);
  EXPECT_EQ(large[99999], 92975);
  EXPECT_EQ(weighted, 249809377481287);
}

TEST_F(GptDatasetTest, WideIntervalsTakeTwoDrawsHighHalfFirst) {
  std::mt19937 engine(7);
  NumpyRandom random(7);
  const uint64_t high = engine(), low = engine();
  EXPECT_EQ(random.interval(~uint64_t{0}), high << 32 | low);
  EXPECT_EQ(random.interval(0), 0u);  // without a draw
  EXPECT_EQ(random.interval(0xffffffff), engine());
}

TEST_F(GptDatasetTest, SplitsRoundHalfToEven) {
  const auto ends = [](const char* split, int64_t total) {
    const auto ranges = split_sequences(split, total);
    EXPECT_EQ(ranges[0].begin, 0);
    EXPECT_EQ(ranges[1].begin, ranges[0].end);
    return std::array<int64_t, 3>{ranges[0].end, ranges[1].end, ranges[2].end};
  };
  EXPECT_EQ(ends("949,50,1", 1000), (std::array<int64_t, 3>{949, 999, 1000}));
  EXPECT_EQ(ends("1,1", 5), (std::array<int64_t, 3>{2, 5, 5}));
  EXPECT_EQ(ends("1, 1", 3), (std::array<int64_t, 3>{2, 3, 3}));
  EXPECT_EQ(ends("100", 7), (std::array<int64_t, 3>{7, 7, 7}));
  for (const char* bad : {"", "1,", "0,0,0", "a", "-1,2", "1,2,3,4", "nan", "inf", "1;2"})
    EXPECT_THROW(split_sequences(bad, 10), ConfigError) << bad;
}

TEST_F(GptDatasetTest, SamplesCoverAnEpochOnce) {
  const std::string prefix = write("a", {7, 1, 20, 3, 9});
  const GptDataset dataset = open(prefix, 0, {.sequence_length = 4});
  EXPECT_EQ(dataset.size(), 9);  // (40 - 1) / 4
  std::vector<int> seen(40);
  for (int64_t i = 0; i < dataset.size(); ++i) {
    const TokenSample sample = dataset.get(i);
    for (size_t t = 0; t + 1 < 4; ++t) EXPECT_EQ(sample.labels[t], sample.tokens[t + 1]);
    for (const int32_t label : sample.labels) ++seen[static_cast<size_t>(label)];
    EXPECT_EQ(sample.loss_weights, std::vector<float>(4, 1.0f));
  }
  for (const int count : seen) EXPECT_LE(count, 1);
  EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), 0), 36);
}

TEST_F(GptDatasetTest, BoundsAndPositionsFollowDocuments) {
  const std::string prefix = write("a", {3, 3, 3, 3});
  const GptDataset dataset = open(
      prefix, 0, {.sequence_length = 11, .reset_position_ids = true, .reset_attention_mask = true});
  const TokenSample sample = dataset.get(0);
  EXPECT_EQ(sample.document_bounds, (std::vector<int32_t>{0, 3, 6, 9, 11}));
  EXPECT_EQ(sample.positions, (std::vector<int32_t>{0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1}));
  // A document of which only the last label is in the sample does not count.
  const TokenSample exact =
      open(prefix, 0, {.sequence_length = 9, .reset_attention_mask = true}).get(0);
  EXPECT_EQ(exact.document_bounds, (std::vector<int32_t>{0, 3, 6, 9}));
  EXPECT_EQ(exact.positions.back(), 8);
  const TokenSample joined = open(prefix, 0, {.sequence_length = 9}).get(0);
  EXPECT_EQ(joined.document_bounds, (std::vector<int32_t>{0, 9}));
}

TEST_F(GptDatasetTest, MasksTheStepAfterADocumentsEnd) {
  const std::string prefix = write("a", {6});
  const GptDataset dataset =
      open(prefix, 0, {.sequence_length = 5, .eod_id = 3, .eod_mask_loss = true});
  EXPECT_EQ(dataset.get(0).loss_weights, (std::vector<float>{1, 1, 1, 0, 1}));
  EXPECT_THROW(open(prefix, 0, {.sequence_length = 5, .eod_mask_loss = true}), ConfigError);
}

TEST_F(GptDatasetTest, RefusesWhatCannotBeCut) {
  const std::string prefix = write("a", {3, 2});
  EXPECT_THROW(open(prefix, 0, {.sequence_length = 5}), ConfigError);
  EXPECT_EQ(open(prefix, 3, {.sequence_length = 5}).size(), 3);  // of four epochs
  EXPECT_THROW(open(prefix, 0, {.sequence_length = 0}), ConfigError);
  EXPECT_THROW(open(prefix, int64_t{1} << 61, {.sequence_length = 64}), ConfigError);
  EXPECT_THROW(open(write("none", {}), 1, {.sequence_length = 5}), ConfigError);
  EXPECT_THROW(open(prefix, 0, {.sequence_length = 4, .vocab_size = 4}).get(0), InputError);
  EXPECT_EQ(open(prefix, 0, {.sequence_length = 4, .vocab_size = 5}).get(0).tokens.size(), 4u);
}

TEST_F(GptDatasetTest, CacheGivesTheSameSamplesAndHealsItself) {
  const std::string prefix = write("a", {7, 1, 20, 3, 9});
  const GptDatasetSettings memory = {.sequence_length = 4};
  GptDatasetSettings build = memory, map = memory;
  build.cache_folder = map.cache_folder = folder_ / "cache";
  map.build_cache = false;
  EXPECT_THROW(open(prefix, 30, map), InputError);  // nobody built it
  const GptDataset expected = open(prefix, 30, memory);
  const auto expect_equal = [&](const GptDataset& found) {
    ASSERT_EQ(found.size(), expected.size());
    for (int64_t i = 0; i < found.size(); ++i)
      EXPECT_EQ(found.get(i).labels, expected.get(i).labels);
  };
  expect_equal(open(prefix, 30, build));
  expect_equal(open(prefix, 30, map));
  EXPECT_THROW(open(prefix, 31, map), InputError);  // another key, not built
  for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
    fs::resize_file(entry.path(), fs::file_size(entry.path()) - 1);
  EXPECT_THROW(open(prefix, 30, map), InputError);
  expect_equal(open(prefix, 30, build));
}

TEST_F(GptDatasetTest, ADamagedCacheThatLooksSoundIsMadeAgainWithALine) {
  const std::string prefix = write("a", {7, 1, 20, 3, 9});
  const GptDatasetSettings settings = {.sequence_length = 4, .cache_folder = folder_ / "cache"};
  const GptDataset expected = open(prefix, 30, settings);
  for (const auto& entry : fs::directory_iterator(folder_ / "cache")) {
    const fs::path path = entry.path();
    if (!path.string().ends_with("shuffle_index.npy")) continue;
    std::string bytes = read_file(path);
    std::swap(bytes[bytes.size() - 4], bytes[bytes.size() - 8]);  // two samples change places
    ASSERT_NE(bytes, read_file(path));
    write_file(path, bytes);
  }
  testing::internal::CaptureStderr();
  const GptDataset healed = open(prefix, 30, settings);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("shuffle_index.npy is damaged"), std::string::npos) << said;
  EXPECT_NE(said.find("the index is made again"), std::string::npos) << said;
  for (int64_t i = 0; i < expected.size(); ++i)
    EXPECT_EQ(healed.get(i).labels, expected.get(i).labels);
}

TEST_F(GptDatasetTest, SurvivesADamagedCache) {
  const std::string prefix = write("a", {7, 1, 20, 3, 9});
  GptDatasetSettings settings = {.sequence_length = 4, .cache_folder = folder_ / "cache"};
  open(prefix, 30, settings);
  settings.build_cache = false;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder_ / "cache"))
    if (entry.path().extension() == ".npy") files.push_back(entry.path());
  ASSERT_EQ(files.size(), 3u);
  for (const fs::path& path : files) {
    const std::string good = read_file(path);
    read_damaged(good, 0.7, [&](const std::string& bytes) {
      std::ofstream(path, std::ios::binary) << bytes;
      const GptDataset dataset = open(prefix, 30, settings);
      for (int64_t i = 0; i < dataset.size(); ++i) EXPECT_EQ(dataset.get(i).tokens.size(), 4u);
    });
    write_file(path, good);
  }
}

TEST_F(GptDatasetTest, BlendGoesToTheDatasetThatLags) {
  const BlendOrder order({0.5, 0.25, 0.25});
  std::vector<int32_t> datasets;
  std::vector<int64_t> samples;
  for (int64_t t = 0; t < 8; ++t) {
    datasets.push_back(order.at(t).dataset);
    samples.push_back(order.at(t).sample);
  }
  EXPECT_EQ(datasets, (std::vector<int32_t>{0, 1, 2, 0, 0, 1, 2, 0}));
  EXPECT_EQ(samples, (std::vector<int64_t>{0, 0, 0, 1, 2, 1, 1, 3}));
  EXPECT_EQ(order.drawn(5), (std::vector<int64_t>{3, 1, 1}));
  // Blocks that were left are found again.
  const BlendOrder fresh({0.5, 0.25, 0.25});
  const int64_t far = 1000003;
  EXPECT_EQ(fresh.at(far).sample, order.at(far).sample);
  EXPECT_EQ(order.at(7).sample, 3);
  const std::vector<int64_t> drawn = order.drawn(far);
  EXPECT_EQ(std::accumulate(drawn.begin(), drawn.end(), int64_t{0}), far);
  EXPECT_NEAR(static_cast<double>(drawn[0]), 0.5 * far, 1);
}

TEST_F(GptDatasetTest, BlendWordsArePairsOrPrefixes) {
  const auto parse = [](std::vector<std::string> words) { return parse_blend(words); };
  EXPECT_EQ(parse({"a"}).prefixes, std::vector<std::string>{"a"});
  EXPECT_EQ(parse({"0.3", "a", "7", "b"}).weights, (std::vector<double>{0.3, 7}));
  EXPECT_EQ(parse({"0.3", "a", "7", "b"}).prefixes, (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(parse({"x", "a"}).prefixes, (std::vector<std::string>{"x", "a"}));
  EXPECT_TRUE(parse({"0.3", "a", "b"}).weights.empty());
  EXPECT_THROW(parse({}), ConfigError);
  EXPECT_THROW(parse({"0", "a"}), ConfigError);
  EXPECT_THROW(parse({"-1", "a"}), ConfigError);
}

TEST_F(GptDatasetTest, BlendsDrawFromTheirDatasets) {
  const std::string a = write("a", std::vector<int>(50, 20));
  const std::string b = write("b", std::vector<int>(50, 20), 5000);
  const DataBlend blend = {{a, b}, {3, 1}};
  const std::array<std::vector<int64_t>, 3> counts = {{{400}, {10}, {10}}};
  const auto splits = build_gpt_datasets(blend, "8,2", counts, {.sequence_length = 10});
  ASSERT_TRUE(splits[0] && splits[1]);
  EXPECT_FALSE(splits[2]);
  EXPECT_EQ(splits[0]->size(), 400);
  int from_b = 0;
  for (int64_t i = 0; i < 400; ++i) from_b += splits[0]->get(i).tokens[0] >= 5000;
  EXPECT_EQ(from_b, 100);
  EXPECT_THROW(build_gpt_datasets({{a, write("tiny", {30})}, {1, 1}}, "8,2", counts,
                                  {.sequence_length = 10}),
               ConfigError);  // no sequence of it falls to the valid split
}

TEST(SequentialSamplerTest, RanksShareEachGlobalStep) {
  const auto sampler = [](int64_t rank, int64_t consumed) {
    return SequentialSampler({.num_samples = 27,
                              .micro_batch_size = 2,
                              .data_parallel_size = 3,
                              .data_parallel_rank = rank},
                             30, consumed);
  };
  std::vector<int> seen(30);
  for (int64_t rank = 0; rank < 3; ++rank) {
    SequentialSampler ours = sampler(rank, 0);
    EXPECT_EQ(ours.micro_batches_left(), 4);
    for (int64_t k = 0; k < 4; ++k) {
      const SampleRange range = ours.next();
      EXPECT_EQ(range.begin, k * 6 + rank * 2);
      EXPECT_EQ(range.end, range.begin + 2);
      for (int64_t i = range.begin; i < range.end; ++i) ++seen[static_cast<size_t>(i)];
    }
    EXPECT_THROW(ours.next(), InternalError);  // 3 samples are left, not a full step
  }
  for (size_t i = 0; i < 30; ++i) EXPECT_EQ(seen[i], i < 24 ? 1 : 0);
  SequentialSampler resumed = sampler(1, 12);
  EXPECT_EQ(resumed.next().begin, 14);
  EXPECT_EQ(resumed.consumed_samples(), 18);
  EXPECT_THROW(sampler(0, 28), ConfigError);
  EXPECT_THROW(SequentialSampler({.num_samples = 31}, 30, 0), ConfigError);
}

}  // namespace
}  // namespace moetron
