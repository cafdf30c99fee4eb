#include "moetron/measure/device_memory.h"

#include <sys/resource.h>

#include <ATen/ATen.h>
#include <c10/core/CachingDeviceAllocator.h>

namespace moetron {
namespace {

constexpr auto kAll = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);

c10::CachingDeviceAllocator::DeviceStats stats_of(c10::Device device) {
  return at::getDeviceAllocator(device.type())->getDeviceStats(device.index());
}

}  // namespace

void reset_peak_memory(c10::Device device) {
  if (device.is_cuda()) at::getDeviceAllocator(device.type())->resetPeakStats(device.index());
}

int64_t peak_memory_bytes(c10::Device device) {
  if (device.is_cuda()) return stats_of(device).allocated_bytes[kAll].peak;
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int64_t num_device_allocations(c10::Device device) {
  return device.is_cuda() ? stats_of(device).segment[kAll].allocated : 0;
}

}  // namespace moetron
