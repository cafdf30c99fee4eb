#include "moetron/metrics/tensorboard.h"

#include <cstring>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/metrics_test_data.h"

namespace moetron {
namespace {

using TensorBoard = MetricsFolderTest;

TEST(Crc32c, MatchesRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  EXPECT_EQ(crc32c(""), 0u);
}

TEST_F(TensorBoard, WritesFramesThatAddUp) {
  std::filesystem::path path;
  {
    TensorBoardWriter writer(folder_ / "events", 0);
    writer.write(sample_record(5));
    path = writer.path();
  }
  const std::string bytes = read_file(path);
  size_t at = 0;
  int num_events = 0;
  while (at < bytes.size()) {
    uint64_t length = 0;
    ASSERT_LE(at + 16, bytes.size());
    std::memcpy(&length, bytes.data() + at, 8);
    at += 12 + length + 4;
    ++num_events;
  }
  EXPECT_EQ(at, bytes.size());
  EXPECT_EQ(num_events, 2 + 10);  // the version, the start, then a scalar each
  EXPECT_NE(bytes.find("train/loss"), std::string::npos);
  EXPECT_EQ(bytes.find("validation/loss"), std::string::npos);
}

TEST_F(TensorBoard, WritesTheBalanceButNoSingleLayer) {
  std::filesystem::path path;
  StepRecord record = sample_record(5);
  record.router_balance = router_balance({layer_load(0, {4, 4}), layer_load(1, {8, 0})});
  record.activation_memory.emplace();
  record.activation_memory->add("experts", 1);
  {
    TensorBoardWriter writer(folder_ / "events", 0);
    writer.write(record);
    path = writer.path();
  }
  const std::string bytes = read_file(path);
  for (const char* tag :
       {"router/max_load", "router/mean_load", "router/idle_share", "router/entropy",
        "router/dead_experts", "memory/activations_peak_gib", "memory/activations_gib/experts"})
    EXPECT_NE(bytes.find(tag), std::string::npos) << tag;
  EXPECT_EQ(bytes.find("layer"), std::string::npos);
}

TEST_F(TensorBoard, NamesAFolderThatCannotBeWritten) {
  write_file(folder_ / "file", "x");
  EXPECT_THROW(TensorBoardWriter(folder_ / "file", 0), ConfigError);
}

}  // namespace
}  // namespace moetron
