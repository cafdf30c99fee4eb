#include "moetron/plan/hardware.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;
constexpr const char* kShipped = "configs/hardware/h100-ib400.toml";

class HardwareFile : public ::testing::Test {
 protected:
  void TearDown() override { fs::remove(path_); }

  // The message for the shipped file in which `from` is `to`.
  std::string refusal(const std::string& from, const std::string& to) {
    std::string text = read_file(kShipped);
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    write_file(path_, text.replace(at, from.size(), to));
    try {
      read_hardware(path_);
      return "";
    } catch (const InputError& error) {
      return std::string(error.what()).substr(path_.string().size());
    }
  }

  const fs::path path_ =
      fs::temp_directory_path() / ("moetron_hardware_" + std::to_string(::getpid()) + ".toml");
};

TEST_F(HardwareFile, TheShippedOneIsRead) {
  const Hardware hardware = read_hardware(kShipped);
  EXPECT_EQ(hardware.gpus_per_node, 8);
  EXPECT_EQ(hardware.network_rate, 42.5e9);
  EXPECT_EQ(hardware.attention.size(), 3u);
  EXPECT_LT(hardware.matrix_rate, 989e12) << "the peak";
}

TEST_F(HardwareFile, EveryFileSaysWhoseOverheadsItHas) {
  EXPECT_EQ(read_hardware(kShipped).system, "the guide's, fitted to the guide's rows");
  for (const char* file : {"configs/hardware/h200.toml", "configs/hardware/h200-x2.toml"})
    EXPECT_EQ(read_hardware(file).system.substr(0, 10), "Moetron on") << file;
}

TEST_F(HardwareFile, MistakesAreNamed) {
  EXPECT_EQ(refusal("name =", "nam ="), " has no name");
  EXPECT_EQ(refusal("[links]", "[link]"), " has no table links");
  EXPECT_EQ(refusal("multiprocessors = 132", "multiprocessors = 132\nsms = 1"),
            ": unknown key gpu.sms");
  EXPECT_EQ(refusal("name =", "extra = 1\nname ="), ": unknown key extra");
  EXPECT_EQ(refusal("memory = 80e9", ""), ": gpu.memory must be a number above 0");
  EXPECT_EQ(refusal("memory = 80e9", "memory = -1"), ": gpu.memory must be a number above 0");
  EXPECT_EQ(refusal("memory = 80e9", "memory = 1e300"),
            ": gpu.memory (1e+300) must be at most 1e+24");
  EXPECT_EQ(refusal("memory = 80e9", "memory = 1e-300"),
            ": gpu.memory (1e-300) must be at least 1e-15");
  for (const char* count : {"0.5", "1.5", "1e18"})
    EXPECT_THAT(refusal("gpus_per_node = 8", concat("gpus_per_node = ", count)),
                testing::HasSubstr("must be a whole number from 1 to 1e+06"));
  EXPECT_EQ(refusal("memory = 80e9", "memory = \"80\""), ": gpu.memory must be a number above 0");
  EXPECT_EQ(refusal("dispatch_multiprocessors = 20", "dispatch_multiprocessors = 132"),
            ": system.dispatch_multiprocessors (132) must be below gpu.multiprocessors (132)");
  EXPECT_EQ(refusal("launch_overhead = 0", "launch_overhead = -1"),
            ": system.launch_overhead must be a number of at least 0");
  EXPECT_EQ(refusal("launch_overhead = 0", "launch_overhead = inf"),
            ": system.launch_overhead (inf) must be finite");
  EXPECT_EQ(refusal("memory = 80e9", "memory = nan"), ": gpu.memory (nan) must be finite");
  EXPECT_EQ(refusal("name = \"the guide's", "named = \"the guide's"),
            ": system.name must be a text");
  EXPECT_EQ(refusal("[gpu]", "[gpu").substr(0, 18), " is not TOML: line");
}

TEST_F(HardwareFile, MistakesInWhatMayBeAbsentAreNamed) {
  const auto tensor = [&](const std::string& value) {
    return refusal("launch_overhead = 0", "launch_overhead = 0\ntensor_overhead = " + value);
  };
  EXPECT_EQ(tensor("0"), "");
  EXPECT_EQ(tensor("-1e-4"), ": system.tensor_overhead must be a number of at least 0");
  EXPECT_EQ(tensor("\"1\""), ": system.tensor_overhead must be a number of at least 0");
  EXPECT_EQ(tensor("inf"), ": system.tensor_overhead (inf) must be finite");
  const auto dispatchers = [&](const std::string& table) {
    return refusal("[gpu]", table + "\n[gpu]");
  };
  EXPECT_EQ(dispatchers("[dispatch_overheads]"), "");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\nalltoall = 0\ndeepep = 1e-3"), "");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\nalltoall = -1e-3"),
            ": dispatch_overheads.alltoall must be a number of at least 0");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\nalltoall = nan"),
            ": dispatch_overheads.alltoall (nan) must be finite");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\ndeepep = [1]"),
            ": dispatch_overheads.deepep must be a number of at least 0");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\nnccl = 1"), ": unknown key dispatch_overheads.nccl");
  EXPECT_EQ(dispatchers("[dispatch_overheads]\noverlap_deepep = 1"),
            ": unknown key dispatch_overheads.overlap_deepep");
  EXPECT_EQ(dispatchers("[[dispatch_overheads]]\ndeepep = 1"), " has no table dispatch_overheads");
}

// Of every number that a file has, told by the file itself.
HardwareNotes notes_of(const Hardware& hardware) {
  HardwareNotes notes{{"", "Measured somewhere."}};
  const auto add = [&](const std::string& name) { notes[name] = "measured: " + name; };
  for (const char* name :
       {"gpu.matrix_rate", "gpu.grouped_rate", "gpu.memory_rate", "gpu.memory",
        "gpu.multiprocessors", "links.gpus_per_node", "links.node_rate", "links.network_rate",
        "links.message_latency", "host.memory", "host.adam_rate", "system.compute_slowdown",
        "system.launch_overhead", "system.dispatch_overhead", "system.dispatch_multiprocessors"})
    add(name);
  if (hardware.tensor_overhead > 0) add("system.tensor_overhead");
  for (const auto& [dispatcher, seconds] : hardware.dispatch_overheads)
    add(dispatch_note(dispatcher));
  for (const AttentionRate& rate : hardware.attention)
    for (const char* key : {"forward", "backward"}) add(attention_note(rate.head_dim, key));
  return notes;
}

Hardware with_all_overheads() {
  Hardware hardware = read_hardware(kShipped);
  hardware.tensor_overhead = 1e-4;
  double seconds = 1e-4;
  for (const TokenDispatcher dispatcher : kPlainDispatchers)
    hardware.dispatch_overheads[dispatcher] = seconds += 1e-4;
  hardware.dispatch_overheads[TokenDispatcher::kAllToAll] = 3e-4;
  hardware.dispatch_overheads[TokenDispatcher::kDeepep] = 0;
  return hardware;
}

TEST_F(HardwareFile, WhatIsWrittenIsReadAsItWas) {
  Hardware hardware = read_hardware(kShipped);
  hardware.name = "a \"quoted\" name\\, and # no comment";
  hardware.matrix_rate = 1e15 / 3;  // digits enough for the same bits
  hardware.launch_overhead = 1.25e-7;
  hardware.dispatch_multiprocessors = 0.5;
  const HardwareNotes notes = notes_of(hardware);
  const std::string text = hardware_text(hardware, notes);
  write_file(path_, text);
  EXPECT_EQ(read_hardware(path_), hardware);
  for (const auto& [name, note] : notes)
    EXPECT_NE(text.find("# " + note + "\n"), std::string::npos) << name;
  EXPECT_EQ(text.find("tensor_overhead"), std::string::npos);
  EXPECT_EQ(text.find("dispatch_overheads"), std::string::npos);
}

TEST_F(HardwareFile, WhatMayBeAbsentIsWrittenWhereItIsKnown) {
  Hardware hardware = with_all_overheads();
  HardwareNotes notes = notes_of(hardware);
  write_file(path_, hardware_text(hardware, notes));
  const Hardware found = read_hardware(path_);
  EXPECT_EQ(found, hardware);
  EXPECT_EQ(found.tensor_overhead, 1e-4);
  EXPECT_EQ(found.dispatch_overheads.at(TokenDispatcher::kAllToAll), 3e-4);
  hardware.tensor_overhead = 0;  // and measured
  const std::string text = hardware_text(hardware, notes);
  EXPECT_NE(text.find("\ntensor_overhead = 0\n"), std::string::npos);
  write_file(path_, text);
  EXPECT_EQ(read_hardware(path_), hardware);
}

TEST_F(HardwareFile, ALongNoteIsBrokenIntoLines) {
  Hardware hardware = read_hardware(kShipped);
  HardwareNotes notes = notes_of(hardware);
  std::string& note = notes["gpu.matrix_rate"] = "\nmeasured [gpu] = 1";
  for (int i = 0; i < 100; ++i) note += " word";
  const std::string text = hardware_text(hardware, notes);
  write_file(path_, text);
  EXPECT_EQ(read_hardware(path_), hardware);
  for (size_t at = 0; at < text.size(); at = text.find('\n', at) + 1)
    EXPECT_LE(text.find('\n', at) - at, 116u);
}

TEST_F(HardwareFile, ANumberWithoutItsOriginIsNotWritten) {
  const Hardware hardware = with_all_overheads();
  for (const auto& [name, note] : notes_of(hardware)) {
    if (name.empty()) continue;
    HardwareNotes fewer = notes_of(hardware);
    fewer.erase(name);
    EXPECT_THROW(hardware_text(hardware, fewer), InternalError) << name;
  }
}

TEST(AttentionRates, TheNearestNarrowerHeadCounts) {
  Hardware hardware;
  hardware.attention = {{64, 1, 1}, {128, 2, 2}, {192, 3, 3}};
  EXPECT_EQ(attention_rate(hardware, 32).head_dim, 64);
  EXPECT_EQ(attention_rate(hardware, 64).head_dim, 64);
  EXPECT_EQ(attention_rate(hardware, 160).head_dim, 128);
  EXPECT_EQ(attention_rate(hardware, 256).head_dim, 192);
}

}  // namespace
}  // namespace moetron
