// `moetron plan --calibrate`: measures the machine that it runs on, and says of each number of a
// hardware file how it was found.
#pragma once

#include <string>

#include <c10/core/Device.h>

#include "moetron/bench/link_rates.h"
#include "moetron/comm/communicator.h"
#include "moetron/plan/hardware.h"

namespace moetron {

struct CalibrationSettings {
  double seconds = 0.3;  // of each operation
  std::string name;      // of the machine; empty: its device's
  std::string command;   // that measures, as typed
  std::string date;      // "2026-11-30"
  NodePlace place;
  double host_memory = 0;  // bytes of this machine that processes may have
  // Where numbers are from that are not measured, and what to call it.
  Hardware base;
  std::string base_name;
  int64_t divided_by = 0;  // sizes of a CPU's operations (CalibrationShapes); 0: 8
};

struct Calibration {
  Hardware hardware;
  HardwareNotes notes;  // of every number
};

// Collective over `world`: all ranks measure at once, and the slowest of them counts. All get the
// same rates; notes are rank 0's. Throws ConfigError where machines have different numbers of
// ranks.
Calibration calibrate(Communicator& world, c10::Device device, const CalibrationSettings& settings);

// The name of a file for such a machine: of 2 ranks on "NVIDIA H200" "nvidia-h200-x2.toml".
std::string hardware_file_name(const std::string& name, int num_ranks);

}  // namespace moetron
