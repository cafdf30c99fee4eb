#include "moetron/formats/safetensors.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/formats/damage_test.h"
#include "moetron/formats/safetensors_index.h"
#include "moetron/formats/safetensors_writer_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
using Dtype = SafetensorsDtype;

std::span<const std::byte> as_bytes(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

// A file without the durable writes, for loops.
std::string with_length(const std::string& header, const std::string& data = "") {
  std::string file;
  for (int i = 0; i < 8; ++i) file += static_cast<char>(header.size() >> (8 * i) & 0xff);
  return file + header + data;
}

class SafetensorsTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  // Writes the tensors with bytes 0, 1, 2, ... in file order.
  void write(const fs::path& path, const std::vector<SafetensorsTensor>& tensors) {
    SafetensorsWriter writer(path, tensors);
    char next = 0;
    for (const SafetensorsEntry& tensor : std::vector(writer.tensors())) {
      std::string bytes;
      for (uint64_t i = 0; i < tensor.bytes; ++i) bytes += next++;
      writer.write(tensor.name, as_bytes(bytes));
    }
    writer.commit();
  }

  void expect_refused(const std::string& content, const std::string& why) {
    dump(folder_ / "bad.safetensors", content);
    try {
      SafetensorsFile file(folder_ / "bad.safetensors");
      FAIL() << "accepted, should be refused: " << why;
    } catch (const InputError& error) {
      EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
      EXPECT_NE(std::string(error.what()).find("bad.safetensors"), std::string::npos);
    }
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_st_" + std::to_string(::getpid()));
};

TEST_F(SafetensorsTest, WritesCanonicalBytes) {
  write(folder_ / "a",
        {{"b", Dtype::kBF16, {2}}, {"a", Dtype::kBF16, {}}, {"z", Dtype::kI64, {1}}});
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"BF16","shape":[],"data_offsets":[8,10]},)"
      R"("b":{"dtype":"BF16","shape":[2],"data_offsets":[10,14]}})";
  const std::string padded = header + std::string((8 - header.size() % 8) % 8, ' ');
  const std::string data("\0\1\2\3\4\5\6\7\10\11\12\13\14\15", 14);
  EXPECT_EQ(read_file(folder_ / "a"), with_length(padded, data));
}

TEST_F(SafetensorsTest, ReadsWhatItWrites) {
  const fs::path path = folder_ / "a";
  write(path,
        {{"empty", Dtype::kF32, {0, 4}}, {"x", Dtype::kF32, {2, 1}}, {"y", Dtype::kBool, {3}}});
  const SafetensorsFile file(path);
  EXPECT_EQ(file.metadata(), (SafetensorsMetadata{{"format", "pt"}}));
  ASSERT_EQ(file.tensors().size(), 3u);
  EXPECT_EQ(file.at("x").shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(file.at("x").dtype, Dtype::kF32);
  EXPECT_EQ(file.bytes(file.at("x"))[7], std::byte{7});
  EXPECT_EQ(file.bytes(file.at("y"))[2], std::byte{10});
  EXPECT_TRUE(file.bytes(file.at("empty")).empty());
  EXPECT_EQ(file.find("absent"), nullptr);
  EXPECT_THROW(file.at("absent"), InputError);
}

TEST_F(SafetensorsTest, AFileWithoutTensorsIsValid) {
  write(folder_ / "none", {});
  EXPECT_TRUE(SafetensorsFile(folder_ / "none").tensors().empty());
}

TEST_F(SafetensorsTest, LayoutTellsPlacesBeforeData) {
  const auto layout = layout_safetensors({{"x", Dtype::kF32, {2}}, {"y", Dtype::kU8, {5}}});
  EXPECT_EQ(layout.tensors.at(0).offset, layout.header.size());
  EXPECT_EQ(layout.tensors.at(1).offset, layout.header.size() + 8);
  EXPECT_EQ(layout.file_bytes, layout.header.size() + 13);
  EXPECT_EQ(layout.header.size() % 8, 0u);
}

TEST_F(SafetensorsTest, WriterKeepsTheCallerToTheOrder) {
  SafetensorsWriter writer(folder_ / "a", {{"x", Dtype::kU8, {2}}, {"y", Dtype::kU8, {2}}});
  EXPECT_THROW(writer.write("y", as_bytes("ab")), InternalError);
  EXPECT_THROW(writer.write("x", as_bytes("abc")), InternalError);
  writer.write("x", as_bytes("a"));
  EXPECT_THROW(writer.commit(), InternalError);
  writer.write("x", as_bytes("b"));
  writer.write("y", as_bytes("cd"));
  EXPECT_THROW(writer.write("y", as_bytes("e")), InternalError);
  writer.commit();
  EXPECT_TRUE(read_file(folder_ / "a").ends_with("abcd"));
  EXPECT_THROW(layout_safetensors({{"x", Dtype::kU8, {2}}, {"x", Dtype::kU8, {2}}}), InternalError);
  EXPECT_THROW(layout_safetensors({{"x", Dtype::kF4, {3}}}), InternalError);
}

TEST_F(SafetensorsTest, RefusesBrokenHeaders) {
  expect_refused("", "only 0 bytes");
  expect_refused(std::string(8, '\xff'), "above");
  expect_refused(std::string("\xff\0\0\0\0\0\0\0{}", 10), "cut short");
  expect_refused(with_length(""), "does not begin with {");
  expect_refused(with_length(" {}"), "does not begin with {");
  expect_refused(with_length("{"), "no JSON object");
  expect_refused(with_length("{} x"), "no JSON object");
  expect_refused(with_length("{\"\xff\":1}"), "no JSON object");
  expect_refused(with_length("{}", "x"), "1 bytes of data");
  expect_refused(with_length(R"({"x":1})"), "no object");
  expect_refused(with_length(R"({"__metadata__":{"a":1}})"), "no string");
  expect_refused(with_length(R"({"__metadata__":{"a":"1","a":"1"}})"), "twice");
  expect_refused(with_length(R"({"__metadata__":[]})"), "no object");
}

TEST_F(SafetensorsTest, RefusesLyingTensors) {
  const auto refuse = [&](const std::string& fields, const std::string& why) {
    expect_refused(with_length(R"({"x":{)" + fields + "}}", "abcd"), why);
  };
  refuse(R"("dtype":"U8","shape":[4])", "each once");
  refuse(R"("dtype":"U8","dtype":"U8","dtype":"U8")", "each once");
  refuse(R"("dtype":"U8","shape":[4],"shape":[4],"data_offsets":[0,4])", "each once");
  refuse(R"("dtype":"U9","shape":[4],"data_offsets":[0,4])", "unknown dtype");
  refuse(R"("dtype":"U8","shape":[-4],"data_offsets":[0,4])", "dimension");
  refuse(R"("dtype":"U8","shape":[4.0],"data_offsets":[0,4])", "dimension");
  refuse(R"("dtype":"U8","shape":[4],"data_offsets":[0,4,4])", "two data offsets");
  refuse(R"("dtype":"U8","shape":[4],"data_offsets":[4,0])", "begin <= end");
  refuse(R"("dtype":"U8","shape":[4],"data_offsets":[-4,0])", "bad data offset");
  refuse(R"("dtype":"U8","shape":[5],"data_offsets":[0,4])", "by its shape");
  refuse(R"("dtype":"U8","shape":[5],"data_offsets":[0,5])", "cut short");
  refuse(R"("dtype":"U8","shape":[3],"data_offsets":[0,3])", "4 bytes of data");
  refuse(R"("dtype":"U8","shape":[3],"data_offsets":[1,4])", "begins at 1");
  refuse(R"("dtype":"F4","shape":[1],"data_offsets":[0,1])", "broken bytes");
  // Products that wrap around to a small number.
  refuse(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])", "too large");
  refuse(R"("dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4])", "too large");
  refuse(R"("dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,4])", "dimension");
  const std::string x = R"("dtype":"U8","shape":[2],"data_offsets":[0,2]})";
  expect_refused(with_length(R"({"x":{)" + x + R"(,"x":{)" + x + "}", "abcd"), "twice");
  expect_refused(with_length(R"({"x":{)" + x + R"(,"y":{)" + x + "}", "abcd"), "begins at 0");
}

TEST_F(SafetensorsTest, SurvivesDamage) {
  write(folder_ / "good", {{"x", Dtype::kF32, {2, 3}}, {"y", Dtype::kU8, {5}}});
  const int accepted =
      read_damaged(read_file(folder_ / "good"), 2.0, [&](const std::string& bytes) {
        dump(folder_ / "damaged", bytes);
        const SafetensorsFile file(folder_ / "damaged");
        uint64_t total = 0;
        for (const SafetensorsEntry& tensor : file.tensors())
          for (const std::byte byte : file.bytes(tensor))
            total += std::to_integer<uint64_t>(byte) + 1;
        EXPECT_LE(total, bytes.size() * 256);
      });
  EXPECT_GT(accepted, 0);  // flips in the data or in a name do no harm
}

TEST_F(SafetensorsTest, ReadsFilesOfOtherWriters) {
  const fs::path samples = "../shared/data/formats/safetensors";
  if (!fs::exists(samples)) GTEST_SKIP() << "no sample files";
  EXPECT_EQ(SafetensorsFile(samples / "syoyo_model.safetensors").at("weight2").shape,
            (std::vector<int64_t>{16, 16}));
  EXPECT_EQ(SafetensorsFile(samples / "candle_encodec_jfk-codes.safetensors").tensors().size(), 1u);
  int refused = 0;
  for (const auto& entry : fs::directory_iterator(samples)) {
    try {
      SafetensorsFile file(entry.path());
    } catch (const InputError&) {
      ++refused;
    }
  }
  EXPECT_EQ(refused, 2);
}

TEST_F(SafetensorsTest, ModelFilesFindTensorsInShards) {
  EXPECT_THROW(ModelFiles{folder_}, InputError);
  write(folder_ / shard_file_name(0, 2), {{"x", Dtype::kU8, {2}}});
  write(folder_ / shard_file_name(1, 2), {{"y", Dtype::kU8, {3}}});
  const fs::path index = folder_ / "model.safetensors.index.json";
  write_safetensors_index(
      index,
      {5, {{"y", "model-00002-of-00002.safetensors"}, {"x", "model-00001-of-00002.safetensors"}}});
  EXPECT_EQ(read_file(index),
            "{\n  \"metadata\": {\n    \"total_size\": 5\n  },\n  \"weight_map\": {\n"
            "    \"x\": \"model-00001-of-00002.safetensors\",\n"
            "    \"y\": \"model-00002-of-00002.safetensors\"\n  }\n}\n");
  const ModelFiles model(folder_);
  EXPECT_EQ(model.names(), (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(model.at("y").shape, std::vector<int64_t>{3});
  EXPECT_EQ(model.bytes("y")[2], std::byte{2});
  EXPECT_EQ(model.file_of("y").filename(), "model-00002-of-00002.safetensors");
  EXPECT_FALSE(model.contains("z"));
  EXPECT_THROW(model.at("z"), InputError);

  write_safetensors_index(index, {5, {{"y", "model-00001-of-00002.safetensors"}}});
  EXPECT_THROW(ModelFiles{folder_}, InputError);  // y is in the other shard
  write_safetensors_index(index, {5, {{"x", "gone.safetensors"}}});
  try {
    ModelFiles broken(folder_);
    FAIL();
  } catch (const InputError& error) {
    EXPECT_NE(std::string(error.what()).find("gone.safetensors"), std::string::npos);
  }
}

TEST_F(SafetensorsTest, AnIndexMustAgreeWithItsShards) {
  const std::string first = shard_file_name(0, 2), second = shard_file_name(1, 2);
  write(folder_ / first, {{"x", Dtype::kU8, {2}}});
  write(folder_ / second, {{"y", Dtype::kU8, {3}}, {"z", Dtype::kU8, {1}}});
  const auto told = [&](const SafetensorsIndex& index) -> std::string {
    write_safetensors_index(folder_ / kIndexFile, index);
    testing::internal::CaptureStderr();
    std::string refusal;
    try {
      ModelFiles files(folder_);
    } catch (const InputError& error) {
      refusal = error.what();
    }
    return testing::internal::GetCapturedStderr() + refusal;
  };
  const auto has = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  EXPECT_EQ(told({6, {{"x", first}, {"y", second}, {"z", second}}}), "");
  EXPECT_EQ(told({0, {{"x", first}, {"y", second}, {"z", second}}}), "");
  EXPECT_TRUE(has(told({7, {{"x", first}, {"y", second}, {"z", second}}}),
                  "says a total_size of 7 bytes, but the tensors have 6"));
  EXPECT_TRUE(has(told({6, {{"x", first}, {"z", second}}}),
                  "does not name 1 tensors of its shards, which are left out; the first is y"));
  write(folder_ / first, {{"x", Dtype::kU8, {2}}, {"y", Dtype::kU8, {3}}});
  EXPECT_TRUE(has(told({9, {{"x", first}, {"y", second}, {"z", second}}}),
                  "holds tensor y twice, in " + second + " and " + first));
}

TEST_F(SafetensorsTest, SingleFileModelNeedsNoIndex) {
  write(folder_ / shard_file_name(0, 1), {{"x", Dtype::kU8, {2}}});
  EXPECT_EQ(ModelFiles(folder_).names(), std::vector<std::string>{"x"});
}

TEST_F(SafetensorsTest, IndexRefusesWaysOutOfTheFolder) {
  const fs::path path = folder_ / "index.json";
  for (const char* name : {"../x", "/etc/passwd", "a/b", "..", ".", "", "a\\\\b", "a\\u0000"}) {
    dump(path, std::string(R"({"weight_map":{"x":")") + name + "\"}}");
    EXPECT_THROW(read_safetensors_index(path), InputError) << name;
  }
  for (const char* text : {"", "[]", "{}", R"({"weight_map":[]})", R"({"weight_map":{"x":1}})",
                           R"({"weight_map":{"x":"a","x":"b"}})"}) {
    dump(path, text);
    EXPECT_THROW(read_safetensors_index(path), InputError) << text;
  }
  dump(path, R"({"metadata":{},"weight_map":{"x":"a"}})");
  EXPECT_EQ(read_safetensors_index(path).weight_map.at("x"), "a");
}

TEST_F(SafetensorsTest, IndexSurvivesDamage) {
  write_safetensors_index(folder_ / "good", {5, {{"x", "a.safetensors"}, {"y", "b.safetensors"}}});
  read_damaged(read_file(folder_ / "good"), 2.0, [&](const std::string& bytes) {
    dump(folder_ / "damaged", bytes);
    for (const auto& [tensor, file] : read_safetensors_index(folder_ / "damaged").weight_map)
      EXPECT_EQ(file.find('/'), std::string::npos);
  });
}

}  // namespace
}  // namespace moetron
