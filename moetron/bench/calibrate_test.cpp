// Calibration of this CPU at small sizes, alone and of ranks that are threads: what is written is
// read again, and every number says where it is from.
#include "moetron/bench/calibrate.h"

#include <filesystem>
#include <gmock/gmock.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "moetron/base/error.h"
#include "moetron/base/error_test_support.h"
#include "moetron/base/file.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/comm/thread_communicator.h"
#include "moetron/comm/thread_ranks.h"

namespace moetron {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

CalibrationSettings settings(NodePlace place) {
  return {.seconds = 0.002,
          .command = "a test",
          .date = "2026-11-30",
          .place = place,
          .host_memory = 8e9,
          .base = read_hardware("configs/hardware/h100-ib400.toml"),
          .base_name = "h100-ib400.toml",
          .divided_by = 64};
}

// What the file gives back.
Hardware read_back(const Calibration& calibration) {
  const auto path =
      std::filesystem::temp_directory_path() / concat("moetron-calibrate-", ::getpid(), ".toml");
  write_file(path, hardware_text(calibration.hardware, calibration.notes));
  const Hardware hardware = read_hardware(path);  // which refuses what is not above 0
  std::filesystem::remove(path);
  return hardware;
}

std::vector<Calibration> calibrations(int size, int per_machine) {
  std::vector<Calibration> all(static_cast<size_t>(size));
  run_ranks(size, [&](Communicator& world) {
    const int rank = world.rank();
    all[static_cast<size_t>(rank)] =
        calibrate(world, at::kCPU, settings({rank % per_machine, per_machine}));
  });
  return all;
}

TEST(Calibrate, AProcessAloneMeasuresAllButLinks) {
  const Calibration found = calibrations(1, 1).front();
  EXPECT_EQ(read_back(found), found.hardware);
  EXPECT_EQ(found.hardware.name, "CPU, 1 core");
  EXPECT_EQ(found.hardware.system, "Moetron on CPU, 1 core, calibrated 2026-11-30");
  ASSERT_EQ(found.hardware.attention.size(), 3u);
  EXPECT_EQ(found.hardware.attention[2].head_dim, 192);
  EXPECT_EQ(found.hardware.memory, 8e9);
  EXPECT_EQ(found.hardware.multiprocessors, 1);
  EXPECT_GT(found.hardware.launch_overhead, 0);
  for (const auto& [name, note] : found.notes) {
    if (name.starts_with("attention") || name.ends_with("_rate")) {
      const bool is_link = name.starts_with("links");
      EXPECT_THAT(note, HasSubstr(is_link ? "not measured" : "measured: ")) << name;
    }
  }
  EXPECT_THAT(found.notes.at("links.message_latency"),
              HasSubstr("not measured (one process): as of H100 SXM5"));
  EXPECT_THAT(found.notes.at("gpu.matrix_rate"), AllOf(HasSubstr("fp32"), HasSubstr("in bf16: ")));
  EXPECT_THAT(found.notes.at(""), AllOf(HasSubstr("a test"), HasSubstr("CPU, 1 core"),
                                        HasSubstr("2026-11-30"), HasSubstr("one process")));
}

TEST(Calibrate, AProcessAloneTakesOverheadsFromAnotherFile) {
  Calibration found;
  run_ranks(1, [&](Communicator& world) {
    CalibrationSettings alone = settings({0, 1});
    alone.base.dispatch_overheads = {{TokenDispatcher::kAllToAll, 2e-3}};
    alone.base.tensor_overhead = 3e-4;
    found = calibrate(world, at::kCPU, alone);
  });
  const Hardware hardware = read_back(found);
  EXPECT_EQ(hardware.dispatch_overheads.at(TokenDispatcher::kAllToAll), 2e-3);
  EXPECT_EQ(hardware.dispatch_overheads.size(), 1u);
  EXPECT_EQ(hardware.tensor_overhead, 3e-4);
  for (const char* name : {"dispatch_overheads.alltoall", "system.tensor_overhead"})
    EXPECT_THAT(found.notes.at(name), HasSubstr("not measured (one process)"));
}

TEST(Calibrate, RanksOfAMachineMeasureItsLinks) {
  const std::vector<Calibration> found = calibrations(2, 2);
  const Hardware& hardware = found[0].hardware;
  EXPECT_EQ(found[1].hardware, hardware) << "all ranks agree";
  EXPECT_EQ(read_back(found[0]), hardware);
  EXPECT_EQ(hardware.name, "2 x CPU, 1 core");
  EXPECT_EQ(hardware.gpus_per_node, 2);
  EXPECT_EQ(hardware.memory, 4e9);
  EXPECT_NE(hardware.message_latency, 20e-6);
  EXPECT_LT(hardware.dispatch_multiprocessors, 1);
  EXPECT_EQ(hardware.network_rate, hardware.node_rate);
  EXPECT_EQ(hardware.dispatch_overheads.size(), std::size(kPlainDispatchers));
  EXPECT_EQ(hardware.dispatch_overhead, hardware.dispatch_overheads.at(TokenDispatcher::kDeepep));
  for (const char* name : {"links.node_rate", "links.message_latency", "system.dispatch_overhead",
                           "dispatch_overheads.allgather", "dispatch_overheads.allgather_fused",
                           "dispatch_overheads.alltoall", "dispatch_overheads.deepep"})
    EXPECT_THAT(found[0].notes.at(name), AllOf(HasSubstr("measured: "), Not(HasSubstr("not "))));
  EXPECT_THAT(found[0].notes.at("links.network_rate"), HasSubstr("not measured (one machine)"));
  EXPECT_THAT(found[0].notes.at("system.tensor_overhead"),
              HasSubstr("not measured (2 ranks cannot divide a layer)"))
      << "of one head";
}

TEST(Calibrate, RanksOfSeveralMachinesMeasureTheNetworkToo) {
  const std::vector<Calibration> found = calibrations(4, 2);
  EXPECT_EQ(read_back(found[0]), found[0].hardware);
  EXPECT_EQ(found[0].hardware.gpus_per_node, 2);
  EXPECT_THAT(found[0].notes.at("links.network_rate"),
              HasSubstr("measured: an all-to-all of 2 ranks of as many machines"));
  EXPECT_NE(found[0].hardware.network_rate, found[0].hardware.node_rate);
}

TEST(Calibrate, MachinesHaveEquallyManyRanks) {
  const auto uneven = [] {
    run_ranks(3, [](Communicator& world) {
      const int rank = world.rank();
      measure_links(world, at::kCPU, {rank % 2, rank < 2 ? 2 : 1}, calibration_shapes(64), 0.001);
    });
  };
  EXPECT_THAT(config_error(uneven), HasSubstr("equally many ranks on each machine, not 1 to 2"));
}

TEST(BenchTimer, RepeatsForAsLongAsAsked) {
  int runs = 0, preparations = 0;
  EXPECT_EQ(repeat_for(at::kCPU, 0, 5, [&] { ++runs; }).size(), 1u);
  EXPECT_EQ(runs, 5);
  const auto prepared = repeat_for(
      at::kCPU, 0, 5, [&] { ++runs; }, [&] { ++preparations; });
  EXPECT_EQ(prepared.size(), 1u);
  EXPECT_EQ(runs, 6);
  EXPECT_EQ(preparations, 1);
  const SteadyTime time = steady_time(at::kCPU, 0.05, [] { ::usleep(2000); });
  EXPECT_GE(time.seconds, 0.002);
  const SteadyTime known = steady_time_of({2, 4, 3});
  EXPECT_EQ(known.seconds, 3);
  EXPECT_DOUBLE_EQ(known.spread, 2.0 / 3);
}

TEST(HardwareFileName, IsTheDevices) {
  EXPECT_EQ(hardware_file_name("NVIDIA H200", 1), "nvidia-h200.toml");
  EXPECT_EQ(hardware_file_name("NVIDIA H200", 2), "nvidia-h200-x2.toml");
  EXPECT_EQ(hardware_file_name("CPU, 2 cores", 1), "cpu-2-cores.toml");
  EXPECT_EQ(hardware_file_name("../a b/", 1), "a-b.toml");
  EXPECT_EQ(hardware_file_name("??", 1), "hardware.toml");
}

}  // namespace
}  // namespace moetron
