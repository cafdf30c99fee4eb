#include "moetron/metrics/event_reader.h"

#include <random>
#include <tuple>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/metrics/metrics_test_data.h"
#include "moetron/metrics/tensorboard.h"

namespace moetron {
namespace {

using Scalars = std::vector<std::tuple<std::string, int64_t, double>>;

Scalars scalars_of(std::string_view bytes) {
  Scalars scalars;
  read_scalars(bytes, "file", [&](std::string_view tag, int64_t step, double value) {
    scalars.emplace_back(tag, step, value);
  });
  return scalars;
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}

std::string record_of(const std::string& event) {
  const std::string length = raw(uint64_t{event.size()});
  return length + raw(masked_crc(length)) + event + raw(masked_crc(event));
}

// Of the record's event: step 7, with one scalar whose tag is "x".
std::string event_of(float value) {
  const std::string entry = std::string("\x0a\x01x\x15", 4) + raw(value);
  return std::string("\x10\x07\x2a", 3) + static_cast<char>(entry.size() + 2) + '\x0a' +
         static_cast<char>(entry.size()) + entry;
}

std::string message_of(const std::string& bytes) {
  try {
    scalars_of(bytes);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

class EventReader : public MetricsFolderTest {
 protected:
  std::string written() const {
    TensorBoardWriter writer(folder_ / "events", 0);
    writer.scalar("train/loss", 2.5, 1);
    writer.scalar("lr", 1e-3, int64_t{1} << 40);
    writer.scalar("train/loss", -0.125, 2);
    return read_file(writer.path());
  }
};

TEST_F(EventReader, ReadsWhatWeWrite) {
  EXPECT_EQ(scalars_of(written()), (Scalars{{"train/loss", 1, 2.5},
                                            {"lr", int64_t{1} << 40, static_cast<float>(1e-3)},
                                            {"train/loss", 2, -0.125}}));
  EXPECT_TRUE(is_event_file(written()));
  EXPECT_FALSE(is_event_file("{\"step\": 1, \"loss\": 2}"));
  EXPECT_FALSE(is_event_file(""));
  EXPECT_EQ(scalars_of(record_of(event_of(3))), (Scalars{{"x", 7, 3}}));
}

TEST_F(EventReader, LeavesOutARecordThatIsCutShort) {
  const std::string bytes = written();
  const size_t two = bytes.size() - record_of(std::string(9 + 2 + 2 + 2 + 17, 0)).size();
  ASSERT_EQ(scalars_of(bytes.substr(0, two)).size(), 2u);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const size_t num_scalars = scalars_of(bytes.substr(0, size)).size();
    EXPECT_LE(num_scalars, 2u);
    if (size >= two) {
      EXPECT_EQ(num_scalars, 2u);
    }
  }
}

TEST_F(EventReader, RefusesEveryChangedByte) {
  const std::string bytes = written();
  for (size_t at = 0; at < bytes.size(); ++at) {
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    EXPECT_THROW(scalars_of(damaged), InputError) << "byte " << at;
  }
}

TEST_F(EventReader, NamesFileAndByte) {
  std::string bytes = record_of("") + record_of(event_of(1));
  bytes[bytes.size() - 6] ^= 1;
  EXPECT_EQ(message_of(bytes), "file: the record at byte 16 is damaged: its checksum is wrong");
  bytes[16] ^= 1;
  EXPECT_EQ(message_of(bytes),
            "file: the record at byte 16 is damaged: the checksum of its length is wrong");
}

// Checksums are no shield against who computes them.
TEST_F(EventReader, ChecksLengthsBehindGoodChecksums) {
  const std::string ends_early[] = {
      std::string("\x2a\x7f\x0a", 3),          // a summary of 127 bytes
      std::string("\x10\xff\xff\xff", 4),      // a number without end
      std::string(12, '\xff'),                 // a tag of more than 64 bits
      std::string("\x09\x00\x00", 3),          // a double of two bytes
      std::string("\x2a\x03\x0a\x09\x0a", 5),  // a value of 9 bytes in a summary of 3
      std::string("\x2a\x04\x0a\x02\x15\x00", 6),
      std::string("\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 10),
      std::string("\x0b", 1)};  // a group, which no event has
  for (const std::string& event : ends_early) {
    EXPECT_NE(message_of(record_of(event)).find("is no event"), std::string::npos);
  }
  const std::string huge = raw(~uint64_t{0} - 3);
  EXPECT_TRUE(scalars_of(huge + raw(masked_crc(huge)) + "abcdefgh").empty()) << "cut short";
}

TEST_F(EventReader, SurvivesAnyEvent) {
  std::mt19937 random(5);
  int num_read = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string event = event_of(1.5);
    for (int change = 0; change < 3; ++change)
      event[random() % event.size()] = static_cast<char>(random());
    event.resize(random() % (event.size() + 1));
    try {
      num_read += static_cast<int>(scalars_of(record_of(event)).size());
    } catch (const InputError&) {
    }
  }
  EXPECT_GT(num_read, 0);
}

}  // namespace
}  // namespace moetron
