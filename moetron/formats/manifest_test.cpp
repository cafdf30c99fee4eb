#include "moetron/formats/manifest.h"

#include <filesystem>
#include <fstream>
#include <span>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/hash.h"
#include "moetron/base/json.h"
#include "moetron/formats/damage_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_ / "state"); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string why_refused() {
    try {
      verify_manifest(folder_);
    } catch (const InputError& error) {
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_ = fs::temp_directory_path() / ("moetron_manifest_" + std::to_string(::getpid()));
};

TEST_F(ManifestTest, NamesTheDamagedBlock) {
  std::string big(kManifestBlockBytes + 100, 'a');
  dump(folder_ / "weights", big);
  dump(folder_ / "state" / "optimizer", "small");
  dump(folder_ / "empty", "");
  write_manifest(folder_,
                 {hash_file(folder_, "weights"), hash_file(folder_, "state/optimizer"),
                  hash_file(folder_, "empty")},
                 {{"step", 12}});
  EXPECT_EQ(verify_manifest(folder_)["step"], 12);
  const auto files = read_manifest(folder_);
  ASSERT_EQ(files.size(), 3u);
  EXPECT_EQ(files[1].name, "state/optimizer");
  EXPECT_EQ(files[2].blocks.size(), 2u);

  big[kManifestBlockBytes + 5] = 'b';
  dump(folder_ / "weights", big);
  EXPECT_NE(why_refused().find("weights is damaged in block 1 (bytes from 16777216)"),
            std::string::npos)
      << why_refused();
  dump(folder_ / "weights", "short");
  EXPECT_NE(why_refused().find("has 5 bytes, its manifest says 16777316"), std::string::npos);
  fs::remove(folder_ / "weights");
  EXPECT_NE(why_refused().find("weights"), std::string::npos);
}

TEST_F(ManifestTest, WritersMayHashTheirOwnBlocks) {
  dump(folder_ / "weights", "abc");
  write_manifest(folder_, {hash_file(folder_, "weights")}, Json::object());
  EXPECT_EQ(why_refused(), "accepted");
  EXPECT_THROW(write_manifest(folder_, {{"weights", 3, {}}}, Json::object()), InternalError);
  EXPECT_THROW(write_manifest(folder_, {{"../weights", 0, {}}}, Json::object()), InternalError);
}

// The checksum tells what rotted, not what was meant.
TEST_F(ManifestTest, RefusesSizesThatNoFileHas) {
  dump(folder_ / "x", "");
  for (const char* size : {"18446747070394551615", "1e300", "-1", "0.0", "\"0\"", "null"}) {
    Json document =
        parse_json(concat(R"({"version": 1, "extra": {}, "files": [{"name": "x", "size": )", size,
                          R"(, "xxh3_128": []}]})"),
                   "manifest");
    const std::string body = document.dump();
    document["checksum"] = hash_hex(std::as_bytes(std::span(body)));
    dump(folder_ / "manifest.json", document.dump());
    EXPECT_NE(why_refused().find("the size of x ("), std::string::npos) << why_refused();
  }
}

TEST_F(ManifestTest, ThreadsAndPartsShareTheBlocks) {
  std::string big(5 * kManifestBlockBytes, 'a');
  dump(folder_ / "weights", big);
  write_manifest(folder_, {hash_file(folder_, "weights")}, {{"step", 3}});
  EXPECT_EQ(verify_manifest(folder_, {}, 4)["step"], 3);
  big[3 * kManifestBlockBytes] = 'b';
  dump(folder_ / "weights", big);
  EXPECT_THROW(verify_manifest(folder_, {}, 4), InputError);
  EXPECT_THROW(verify_manifest(folder_, {1, 2}), InputError);
  EXPECT_EQ(verify_manifest(folder_, {0, 2})["step"], 3);
  EXPECT_EQ(verify_manifest(folder_, {0, 0})["step"], 3);
}

TEST_F(ManifestTest, SurvivesDamage) {
  dump(folder_ / "weights", "abc");
  write_manifest(folder_, {hash_file(folder_, "weights")}, {{"step", 3}});
  const std::string good = read_file(folder_ / "manifest.json");
  read_damaged(good, 2.0, [&](const std::string& bytes) {
    dump(folder_ / "manifest.json", bytes);
    // What passes the checksum says the same: only its white space was damaged.
    EXPECT_EQ(verify_manifest(folder_)["step"], 3);
  });
}

}  // namespace
}  // namespace moetron
