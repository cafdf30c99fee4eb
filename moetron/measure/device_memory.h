// How much memory a device's tensors have taken.
#pragma once

#include <cstdint>

#include <c10/core/Device.h>

namespace moetron {

// The most bytes that tensors held on a GPU since the reset; of a CPU, the most that the process
// has ever held.
void reset_peak_memory(c10::Device device);
int64_t peak_memory_bytes(c10::Device device);

// How often memory was taken from a GPU itself since the process began: what tensors give back is
// kept for others, so that a run in its stride takes none. 0 for a CPU.
int64_t num_device_allocations(c10::Device device);

}  // namespace moetron
