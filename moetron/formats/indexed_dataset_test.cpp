#include "moetron/formats/indexed_dataset.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/read_sequence_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class IndexedDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // Three documents: two tokens, none, three tokens.
  void write_small(const std::string& prefix, TokenType type) {
    IndexedDatasetWriter writer(prefix, type);
    writer.add_sequence(std::vector<int32_t>{1, 2});
    writer.end_document();
    writer.end_document();
    writer.add_sequence(std::vector<int32_t>{3, 4, 100});
    writer.end_document();
    writer.commit();
  }

  // Reads every token that a dataset promises.
  static int64_t read_all(const IndexedDataset& dataset) {
    int64_t tokens = 0;
    for (int64_t s = 0; s < dataset.num_sequences(); ++s)
      tokens += static_cast<int64_t>(read_sequence(dataset, s).size());
    for (int64_t d = 0; d <= dataset.num_documents(); ++d)
      EXPECT_LE(dataset.document_start(d), dataset.num_sequences());
    return tokens;
  }

  template <class T>
  void expect_refused_with(size_t at, T value) {
    std::string index = good_index_;
    std::memcpy(index.data() + at, &value, sizeof value);
    dump(folder_ / "bad.idx", index);
    EXPECT_THROW(IndexedDataset((folder_ / "bad").string()), InputError) << at << " " << value;
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_idx_" + std::to_string(::getpid()));
  std::string good_index_;
};

TEST_F(IndexedDatasetTest, WritesTheFormatByte) {
  write_small((folder_ / "a").string(), TokenType::kUint16);
  EXPECT_EQ(read_file(folder_ / "a.bin"), std::string("\1\0\2\0\3\0\4\0\144\0", 10));
  const std::string index = read_file(folder_ / "a.idx");
  ASSERT_EQ(index.size(), 34u + 2 * 12 + 4 * 8);
  EXPECT_EQ(index.substr(0, 18), std::string("MMIDIDX\0\0\1\0\0\0\0\0\0\0\10", 18));
  EXPECT_EQ(index.substr(34, 8), std::string("\2\0\0\0\3\0\0\0", 8));
  EXPECT_EQ(index.substr(50, 8), std::string("\4\0\0\0\0\0\0\0", 8));  // bytes, not tokens
}

TEST_F(IndexedDatasetTest, ReadsBackInEveryType) {
  const std::string prefix = (folder_ / "a").string();
  for (const TokenType type : {TokenType::kUint8, TokenType::kInt8, TokenType::kInt16,
                               TokenType::kUint16, TokenType::kInt32, TokenType::kInt64}) {
    write_small(prefix, type);
    const IndexedDataset dataset(prefix);
    EXPECT_EQ(dataset.type(), type);
    EXPECT_EQ(dataset.num_sequences(), 2);
    EXPECT_EQ(dataset.num_documents(), 3);
    EXPECT_EQ(dataset.num_tokens(), 5);
    EXPECT_EQ(read_sequence(dataset, 1), (std::vector<int32_t>{3, 4, 100}));
    EXPECT_EQ(dataset.document_start(1), 1);
    EXPECT_EQ(dataset.document_start(2), 1);
    std::vector<int32_t> part(2);
    dataset.get(1, 1, std::span<int32_t>(part));
    EXPECT_EQ(part, (std::vector<int32_t>{4, 100}));
    EXPECT_THROW(dataset.get(1, 2, std::span<int32_t>(part)), InternalError);
    EXPECT_THROW(read_sequence(dataset, 2), InternalError);
  }
}

TEST_F(IndexedDatasetTest, NothingAppearsWithoutCommit) {
  const std::string prefix = (folder_ / "a").string();
  {
    IndexedDatasetWriter writer(prefix, TokenType::kUint16);
    writer.add_sequence(std::vector<int32_t>{1});
    EXPECT_THROW(writer.add_sequence(std::vector<int32_t>{65536}), ConfigError);
    EXPECT_THROW(writer.add_sequence(std::vector<int32_t>{-1}), ConfigError);
    EXPECT_THROW(writer.commit(), InternalError);  // the document is open
  }
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_THROW(IndexedDataset{prefix}, InputError);
}

TEST_F(IndexedDatasetTest, TheOldPairStaysUntilTheNewOneIsThere) {
  const std::string prefix = (folder_ / "pair").string();
  const auto write = [&](int32_t token) {
    IndexedDatasetWriter writer(prefix, TokenType::kUint16);
    writer.add_sequence(std::vector<int32_t>{token});
    writer.end_document();
    writer.commit();
  };
  write(1);
  write(2);
  EXPECT_EQ(read_sequence(IndexedDataset(prefix), 0), std::vector<int32_t>{2});
  const std::string index = read_file(prefix + ".idx");
  fs::remove(prefix + ".bin");
  fs::create_directories(prefix + ".bin/in the way");
  EXPECT_THROW(write(3), ConfigError);
  EXPECT_EQ(read_file(prefix + ".idx"), index);
  fs::remove_all(prefix + ".bin");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1)
      << "a temporary file is left";
}

// Pairs of different shapes: a mixed one would not open, or not hold what it says.
TEST_F(IndexedDatasetTest, TwoWritersOfOnePrefixNeverMix) {
  const std::string prefix = (folder_ / "pair").string();
  const auto write = [&](size_t num_tokens) {
    IndexedDatasetWriter writer(prefix, TokenType::kUint16);
    writer.add_sequence(std::vector<int32_t>(num_tokens, static_cast<int32_t>(num_tokens)));
    writer.end_document();
    writer.commit();
  };
  for (int round = 0; round < 40; ++round) {
    std::thread short_one([&] { write(3); });
    write(5);
    short_one.join();
    const std::vector<int32_t> tokens = read_sequence(IndexedDataset(prefix), 0);
    EXPECT_EQ(tokens, std::vector<int32_t>(tokens.size(), static_cast<int32_t>(tokens.size())));
  }
}

TEST_F(IndexedDatasetTest, TypeFollowsTheVocabulary) {
  EXPECT_EQ(token_type_for_vocab(65499), TokenType::kUint16);
  EXPECT_EQ(token_type_for_vocab(65500), TokenType::kInt32);
}

TEST_F(IndexedDatasetTest, RewritingSamplesGivesTheirBytes) {
  const fs::path samples = "../shared/data/formats/megatron";
  if (!fs::exists(samples)) GTEST_SKIP() << "no sample files";
  for (const char* name : {"meg-gpt2-openwebtext_text_document", "ag_news_prompt_inputs_document",
                           "ag_news_prompt_targets_document"}) {
    const std::string from = (samples / name).string(), to = (folder_ / name).string();
    const IndexedDataset dataset(from);
    EXPECT_GT(dataset.num_tokens(), 0);
    IndexedDatasetWriter writer(to, dataset.type());
    for (int64_t d = 0; d < dataset.num_documents(); ++d) {
      for (int64_t s = dataset.document_start(d); s < dataset.document_start(d + 1); ++s)
        writer.add_sequence(read_sequence(dataset, s));
      writer.end_document();
    }
    writer.commit();
    EXPECT_EQ(read_file(from + ".bin"), read_file(to + ".bin")) << name;
    EXPECT_EQ(read_file(from + ".idx"), read_file(to + ".idx")) << name;
    EXPECT_EQ(dataset.fingerprint(), IndexedDataset(to).fingerprint());
  }
}

TEST_F(IndexedDatasetTest, RefusesLyingIndices) {
  write_small((folder_ / "bad").string(), TokenType::kUint16);
  good_index_ = read_file(folder_ / "bad.idx");
  EXPECT_EQ(read_all(IndexedDataset((folder_ / "bad").string())), 5);
  expect_refused_with<uint64_t>(9, 2);                    // version
  expect_refused_with<uint8_t>(17, 0);                    // type
  expect_refused_with<uint8_t>(17, 6);                    // floats are no tokens
  expect_refused_with<uint8_t>(17, 5);                    // wider than the file
  expect_refused_with<uint64_t>(18, 3);                   // sequences
  expect_refused_with<uint64_t>(18, uint64_t{1} << 62);   // 12 times it wraps
  expect_refused_with<uint64_t>(18, 0x1555555555555557);  // 12 times it wraps to a small number
  expect_refused_with<uint64_t>(26, 0);                   // documents
  expect_refused_with<uint64_t>(26, (uint64_t{1} << 61) + 4);
  expect_refused_with<int32_t>(34, -1);  // lengths
  expect_refused_with<int32_t>(38, 4);
  expect_refused_with<int64_t>(42, -2);  // pointers
  expect_refused_with<int64_t>(42, 6);
  expect_refused_with<int64_t>(50, 3);
  expect_refused_with<int64_t>(50, 6);
  expect_refused_with<int64_t>(58, 1);  // documents
  expect_refused_with<int64_t>(66, 3);
  expect_refused_with<int64_t>(66, -1);
  expect_refused_with<int64_t>(82, 1);
  dump(folder_ / "bad.idx", good_index_ + "mm");  // one mode a sequence
  EXPECT_THROW(IndexedDataset((folder_ / "bad").string()), InputError);
  dump(folder_ / "bad.idx", good_index_);
  dump(folder_ / "bad.bin", "short");
  EXPECT_THROW(IndexedDataset((folder_ / "bad").string()), InputError);
}

TEST_F(IndexedDatasetTest, RefusesTokensBeyond32Bits) {
  write_small((folder_ / "a").string(), TokenType::kInt64);
  std::string tokens = read_file(folder_ / "a.bin");
  tokens[5] = 1;  // 2^40
  dump(folder_ / "a.bin", tokens);
  const IndexedDataset dataset((folder_ / "a").string());
  EXPECT_THROW(read_sequence(dataset, 0), InputError);
}

// Within its last page a mapped file that was cut short reads as zeros, without a signal.
TEST_F(IndexedDatasetTest, RefusesWhatIsCutShortWhileItIsOpen) {
  const std::string prefix = (folder_ / "a").string();
  write_small(prefix, TokenType::kInt32);
  const IndexedDataset dataset(prefix);
  EXPECT_EQ(read_sequence(dataset, 0), (std::vector<int32_t>{1, 2}));
  fs::rename(prefix + ".bin", prefix + ".old");  // another file took the name
  dump(prefix + ".bin", "");
  EXPECT_EQ(read_sequence(dataset, 0), (std::vector<int32_t>{1, 2}));
  fs::rename(prefix + ".old", prefix + ".bin");
  fs::resize_file(prefix + ".bin", 8);
  EXPECT_THROW(read_sequence(dataset, 1), InputError);
}

TEST_F(IndexedDatasetTest, SurvivesDamage) {
  const std::string prefix = (folder_ / "a").string();
  write_small(prefix, TokenType::kUint16);
  const int accepted = read_damaged(read_file(prefix + ".idx"), 2.0, [&](const std::string& bytes) {
    dump(prefix + ".idx", bytes);
    read_all(IndexedDataset(prefix));
  });
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace moetron
