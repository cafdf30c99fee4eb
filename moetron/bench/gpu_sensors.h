// What a GPU draws and how fast it is clocked, from the driver's NVML: under a power limit these
// say what no timer says.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <c10/core/Device.h>

namespace moetron {

class GpuSensors {
 public:
  // Empty where there is no GPU, or no NVML that knows it.
  static std::optional<GpuSensors> open(c10::Device device);

  double joules() const;       // drawn since the driver was loaded, renewed every 0.1 s or so
  double power_limit() const;  // watts
  double megahertz() const;    // of the multiprocessors, now

 private:
  struct Nvml;
  explicit GpuSensors(std::shared_ptr<Nvml> nvml) : nvml_(std::move(nvml)) {}
  std::shared_ptr<Nvml> nvml_;
};

}  // namespace moetron
