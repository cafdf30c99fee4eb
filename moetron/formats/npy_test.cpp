#include "moetron/formats/npy.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/formats/damage_test.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

class NpyTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  fs::path folder_ = fs::temp_directory_path() / ("moetron_npy_" + std::to_string(::getpid()));
};

TEST_F(NpyTest, WritesNumPysBytes) {
  const std::vector<int64_t> values = {1, -2, 3, 4, 5, 6};
  write_npy<int64_t>(folder_ / "a.npy", values, {3, 2});
  const std::string file = read_file(folder_ / "a.npy");
  const std::string begin("\x93NUMPY\x01\x00\x76\x00", 10);
  EXPECT_EQ(file.substr(0, 69),
            begin + "{'descr': '<i8', 'fortran_order': False, 'shape': (3, 2), }");
  EXPECT_EQ(file.size(), 128u + 48);
  EXPECT_EQ(file[127], '\n');
  const NpyFile array(folder_ / "a.npy");
  EXPECT_EQ(array.shape(), (std::vector<int64_t>{3, 2}));
  EXPECT_EQ(array.values<int64_t>()[5], 6);
  EXPECT_EQ(array.at(1), -2);
  EXPECT_THROW(array.values<int32_t>(), InputError);
  EXPECT_THROW(array.at(6), InternalError);
}

TEST_F(NpyTest, KeepsEveryType) {
  const auto round_trip = [&](auto value) {
    using T = decltype(value);
    const std::vector<T> values = {value, T{1}};
    write_npy<T>(folder_ / "a.npy", values, {2});
    const NpyFile array(folder_ / "a.npy");
    EXPECT_EQ(array.values<T>()[0], value);
    EXPECT_EQ(array.at(0), static_cast<int64_t>(value));
    EXPECT_EQ(array.shape(), std::vector<int64_t>{2});
  };
  round_trip(int16_t{-3});
  round_trip(int32_t{-70000});
  round_trip(uint32_t{4000000000});
  round_trip(int64_t{1} << 40);
  write_npy<int32_t>(folder_ / "empty.npy", {}, {0});
  EXPECT_EQ(NpyFile(folder_ / "empty.npy").size(), 0u);
}

TEST_F(NpyTest, SurvivesDamage) {
  const std::vector<int32_t> values = {1, 2, 3, 4};
  write_npy<int32_t>(folder_ / "good.npy", values, {2, 2});
  const std::string good = read_file(folder_ / "good.npy");
  read_damaged(good, 2.0, [&](const std::string& bytes) {
    dump(folder_ / "a.npy", bytes);
    const NpyFile array(folder_ / "a.npy");
    for (size_t i = 0; i < array.size(); ++i) array.at(i);
    EXPECT_LE(array.size() * 2, bytes.size());
  });
}

}  // namespace
}  // namespace moetron
