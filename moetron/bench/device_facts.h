// What a device says of itself.
#pragma once

#include <string>

#include <c10/core/Device.h>

namespace moetron {

struct DeviceFacts {
  std::string name;            // "NVIDIA H200"; "CPU, 2 cores": as many as compute threads
  double memory = 0;           // bytes; of a CPU 0: whoever asks knows what the process may have
  double multiprocessors = 0;  // of a CPU, compute threads
};

// Throws InternalError where the driver does not answer.
DeviceFacts device_facts(c10::Device device);

}  // namespace moetron
