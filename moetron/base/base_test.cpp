#include <atomic>
#include <cmath>
#include <filesystem>
#include <span>
#include <sys/stat.h>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/build.h"
#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/folder_lock.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/base/parallel_for.h"
#include "moetron/base/path.h"
#include "moetron/base/placed_writer.h"
#include "moetron/base/random.h"
#include "moetron/base/shrunk_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class BaseTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / ("moetron_base_" + std::to_string(::getpid()));
};

TEST(Build, KnowsItsVersionAndCommit) {
  const std::string identity = build_identity();
  EXPECT_TRUE(identity.starts_with("0.") && identity.ends_with(")")) << identity;
  EXPECT_NE(identity.find(" (commit "), std::string::npos) << identity;
}

TEST_F(BaseTest, ChecksNameValuesAndCarryExitCodes) {
  try {
    MT_CHECK_CONFIG(false, "tensor-model-parallel-size (", 3, ") must divide heads (", 8, ")");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "tensor-model-parallel-size (3) must divide heads (8)");
    EXPECT_EQ(error.exit_code(), kExitConfig);
  }
  EXPECT_THROW(MT_CHECK(1 > 2, "never"), InternalError);
  EXPECT_THROW(MT_CHECK_INPUT(false, "cut short"), InputError);
}

TEST_F(BaseTest, WriterShowsNothingBeforeCommit) {
  const fs::path path = folder_ / "text";
  const std::string big(3 << 20, 'x');
  {
    FileWriter writer(path);
    writer.write("abc");
    writer.write(big);
    EXPECT_EQ(writer.position(), 3 + big.size());
    EXPECT_FALSE(fs::exists(path));
  }
  EXPECT_TRUE(fs::is_empty(folder_));  // dropped: the temporary file is gone too
  FileWriter writer(path);
  writer.write("abc");
  writer.write(big);
  writer.commit();
  EXPECT_EQ(read_file(path), "abc" + big);
  EXPECT_EQ(MappedFile(path).text(), "abc" + big);
}

TEST_F(BaseTest, WritersOfOnePathDoNotMeet) {
  const fs::path path = folder_ / "text";
  write_file(folder_ / "text.tmp", "a killed writer's");
  {
    FileWriter first(path), second(path);
    first.write("first");
    second.write("the second");
    second.commit();
    EXPECT_EQ(read_file(path), "the second");
    FileWriter third(path);
    third.write("3");
    first.commit();
    EXPECT_EQ(read_file(path), "first");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(BaseTest, PlacedWritersFillAFileTogether) {
  const fs::path path = folder_ / "file";
  PlacedWriter(path, 6).write(std::as_bytes(std::span("def", 3)), 3);
  PlacedWriter second(path);
  second.write(std::as_bytes(std::span("abc", 3)), 0);
  second.sync();
  EXPECT_EQ(read_file(path), "abcdef");
  try {
    PlacedWriter(folder_ / "none", std::nullopt, " (rank 3)");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.what(), "cannot write " + (folder_ / "none").string() +
                                ": No such file or directory (rank 3)");
  }
}

// Whole pages at places of pages may go past the page cache; what is written is the same.
TEST_F(BaseTest, PlacedWritersWriteWhateverLiesAnywhere) {
  constexpr size_t kPage = WriteBuffer::kAlignment, kSize = 5 * kPage + 123;
  WriteBuffer buffer;
  EXPECT_EQ(buffer.room(10).size(), 10u);
  const std::span<std::byte> bytes = buffer.room(kSize);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % kPage, 0u);
  for (size_t i = 0; i < kSize; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / kPage);
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), kSize);
  for (const size_t from : {size_t{0}, size_t{1}, kPage}) {     // in memory
    for (const size_t place : {size_t{0}, size_t{5}, kPage}) {  // in the file
      const fs::path path = folder_ / "file";
      PlacedWriter writer(path, place + kSize - from);
      writer.write(bytes.subspan(from), place);
      writer.sync();
      EXPECT_EQ(read_file(path), std::string(place, '\0') + std::string(text.substr(from)))
          << from << ", " << place;
    }
  }
}

TEST(ParallelFor, DoesEveryPieceOnce) {
  for (const int num_threads : {0, 1, 3, 50}) {
    std::vector<std::atomic<int>> calls(37);
    parallel_for(num_threads, calls.size(), [&](uint64_t piece) { ++calls[piece]; });
    for (const auto& count : calls) EXPECT_EQ(count, 1);
  }
  parallel_for(3, 0, [](uint64_t) { FAIL(); });
}

TEST(ParallelFor, AFailureEndsTheWork) {
  std::atomic<int> calls = 0;
  const auto fail_at_ten = [&](uint64_t piece) {
    ++calls;
    if (piece == 10) throw InputError("ten");
  };
  EXPECT_THROW(parallel_for(4, 1'000'000'000'000, fail_at_ten), InputError);
  EXPECT_GT(calls, 10);
}

TEST_F(BaseTest, FolderLocksTakeTurns) {
  {
    const FolderLock first(folder_);
    EXPECT_THROW(FolderLock(folder_, std::chrono::milliseconds(20)), ConfigError);
  }
  const FolderLock second(folder_);
  EXPECT_TRUE(fs::is_empty(folder_));
  EXPECT_THROW(FolderLock(folder_ / "absent"), ConfigError);
}

TEST_F(BaseTest, AFailedRenameLeavesNothing) {
  fs::create_directories(folder_ / "text" / "in the way");
  EXPECT_THROW(write_file(folder_ / "text", "abc"), ConfigError);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()), 1);
}

TEST_F(BaseTest, ReadersTellWhatIsMissing) {
  write_file(folder_ / "text", "0123456789");
  const FileReader reader(folder_ / "text");
  EXPECT_EQ(reader.size(), 10u);
  std::string out(4, ' ');
  reader.read(6, std::as_writable_bytes(std::span(out)));
  EXPECT_EQ(out, "6789");
  EXPECT_THROW(reader.read(7, std::as_writable_bytes(std::span(out))), InputError);
}

TEST_F(BaseTest, UnreadableFilesAreInputErrors) {
  EXPECT_THROW(read_file(folder_ / "absent"), InputError);
  EXPECT_THROW(read_file(folder_), InputError);
  EXPECT_THROW(MappedFile(folder_ / "absent"), InputError);
  EXPECT_THROW(FileWriter(folder_ / "no" / "such"), ConfigError);
  write_file(folder_ / "empty", "");
  EXPECT_EQ(MappedFile(folder_ / "empty").size(), 0u);
}

TEST_F(BaseTest, JsonRefusesBrokenDuplicateAndDeep) {
  EXPECT_EQ(parse_json(R"({"a": [1, 2]})", "t")["a"][1], 2);
  EXPECT_THROW(parse_json(R"({"a": 1)", "t"), InputError);
  EXPECT_THROW(parse_json(R"({"a": 1, "a": 2})", "t"), InputError);
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 2}])", "t"));
  EXPECT_THROW(parse_json(std::string(100000, '['), "t"), InputError);
  EXPECT_THROW(parse_json(R"({"a": 1e999})", "t"), InputError);
}

TEST_F(BaseTest, JsonRefusesObjectsThatWouldTakeMinutes) {
  std::string keys = "{\"k\": 0";
  for (int i = 0; i < 200000; ++i) keys += concat(", \"key", i, "\": 0");
  EXPECT_THROW(parse_json(keys + "}", "t"), InputError);
}

TEST_F(BaseTest, PathsThatCannotBeLookedAtAreInputErrors) {
  write_file(folder_ / "file", "");
  EXPECT_TRUE(path_exists(folder_ / "file"));
  EXPECT_FALSE(is_folder(folder_ / "file"));
  EXPECT_TRUE(is_folder(folder_));
  EXPECT_FALSE(path_exists(folder_ / "absent"));
  EXPECT_FALSE(path_exists(folder_ / "file" / "below a file"));
  fs::create_symlink("loop", folder_ / "loop");
  for (const fs::path& path : {folder_ / "loop", folder_ / std::string(300, 'n')}) {
    EXPECT_THROW(path_exists(path), InputError) << path;
    EXPECT_THROW(is_folder(path), InputError) << path;
  }
}

TEST_F(BaseTest, PipesAreNoFiles) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_THROW(read_file(folder_ / "pipe"), InputError);  // and does not wait for a writer
  EXPECT_THROW(MappedFile(folder_ / "pipe"), InputError);
}

TEST_F(BaseTest, AFileThatShrinksWhileItIsReadEndsInASentence) {
  const fs::path path = folder_ / "tokens.bin";
  write_file(path, std::string(1 << 20, 'x'));
  const auto read_shrunk = [&] {
    report_shrunk_files();
    const MappedFile file(path);
    fs::resize_file(path, 10);
    std::exit(file.text()[900000] == 'x' ? 0 : 1);
  };
  EXPECT_EXIT(read_shrunk(), testing::ExitedWithCode(kExitCorruptInput),
              "tokens.bin was cut short while it was read");
}

TEST_F(BaseTest, PhiloxMatchesThePublishedVectors) {
  // Random123's known answers for philox4x32-10.
  EXPECT_EQ(philox(0, 0, 0),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~0ull, ~0ull, ~0ull),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST_F(BaseTest, NormalsAreStandardAndIndependentOfWhereADrawStarts) {
  const RandomStream stream(1234, 0, "model.embed_tokens.weight");
  std::vector<float> whole(100003);
  stream.fill_normal(whole, 0, 0.02f);
  std::vector<float> part(777);
  stream.fill_normal(part, 4242, 0.02f);
  for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], whole[4242 + i]);
  double sum = 0, squares = 0;
  for (const float value : whole) {
    sum += value;
    squares += double{value} * value;
  }
  EXPECT_NEAR(sum / whole.size(), 0, 3e-4);
  EXPECT_NEAR(std::sqrt(squares / whole.size()), 0.02, 2e-4);
}

TEST_F(BaseTest, HashIsXxh3) {
  EXPECT_EQ(hash_hex({}), "99aa06d3014798d86001c324468d497f");  // XXH3-128 of nothing
}

}  // namespace
}  // namespace moetron
