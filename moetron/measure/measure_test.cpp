// The meter of tensor memory: what is alive, by purpose, and the most at once.
#include <optional>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "moetron/measure/device_memory.h"
#include "moetron/measure/memory_meter.h"

namespace moetron {
namespace {

constexpr int64_t kBytes = 1 << 20;

at::Tensor tensor_of(int64_t bytes) {
  return at::empty({bytes}, at::kByte);
}

int64_t bytes_for(const ActivationMemory& memory, const std::string& purpose) {
  for (const ActivationBytes& kept : memory.kept) {
    if (kept.purpose == purpose) return kept.bytes;
  }
  return 0;
}

TEST(MemoryMeter, CountsWhatIsAliveByPurpose) {
  const at::Tensor before = tensor_of(kBytes);
  MemoryMeter meter;
  at::Tensor attention, experts;
  {
    const MemoryScope outer(&meter, "attention");
    attention = tensor_of(2 * kBytes);
    {
      const MemoryScope inner(&meter, "experts");
      experts = tensor_of(3 * kBytes);
    }
    tensor_of(4 * kBytes);  // gone at once, but part of the peak
  }
  const at::Tensor other = tensor_of(kBytes);
  const ActivationMemory memory = meter.measure();
  EXPECT_EQ(bytes_for(memory, "attention"), 2 * kBytes);
  EXPECT_EQ(bytes_for(memory, "experts"), 3 * kBytes);
  EXPECT_EQ(bytes_for(memory, "other"), kBytes);
  EXPECT_EQ(memory.peak_bytes, 9 * kBytes);
  experts.reset();
  EXPECT_EQ(bytes_for(meter.measure(), "experts"), 0);
}

TEST(MemoryMeter, AScopeWithoutMeterDoesNothing) {
  std::optional<MemoryScope> scope;
  scope.emplace(nullptr, "nothing");
  EXPECT_EQ(tensor_of(kBytes).numel(), kBytes);
}

TEST(DeviceMemory, TheProcessHoldsAtLeastWhatItTouched) {
  const int64_t bytes = int64_t{64} << 20;
  at::Tensor touched = tensor_of(bytes);
  touched.fill_(1);
  EXPECT_GE(peak_memory_bytes(c10::kCPU), bytes);
}

}  // namespace
}  // namespace moetron
