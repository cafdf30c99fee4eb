#include "moetron/bench/gpu_sensors.h"

#include <dlfcn.h>

#ifdef MOETRON_CUDA
#include <cuda_runtime_api.h>
#endif

#include "moetron/base/error.h"

namespace moetron {

// The library belongs to the driver, so that it is looked for when it is wanted. Its functions as
// nvml.h declares them: each returns zero for success.
struct GpuSensors::Nvml {
  using Handle = struct Opaque*;
  int (*get_energy)(Handle, unsigned long long* millijoules) = nullptr;
  int (*get_limit)(Handle, unsigned* milliwatts) = nullptr;
  int (*get_clock)(Handle, int kind, unsigned* megahertz) = nullptr;
  Handle handle = nullptr;
};

#ifdef MOETRON_CUDA
namespace {

template <class Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

std::optional<GpuSensors> GpuSensors::open(c10::Device device) {
  char bus[32] = {};
  if (!device.is_cuda() || cudaDeviceGetPCIBusId(bus, sizeof bus, device.index()) != cudaSuccess) {
    return std::nullopt;
  }
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW);  // stays loaded
  if (library == nullptr) return std::nullopt;
  auto nvml = std::make_shared<Nvml>();
  int (*init)() = nullptr;
  int (*by_bus)(const char*, Nvml::Handle*) = nullptr;
  if (!find(library, "nvmlInit_v2", init) ||
      !find(library, "nvmlDeviceGetHandleByPciBusId_v2", by_bus) ||
      !find(library, "nvmlDeviceGetTotalEnergyConsumption", nvml->get_energy) ||
      !find(library, "nvmlDeviceGetEnforcedPowerLimit", nvml->get_limit) ||
      !find(library, "nvmlDeviceGetClockInfo", nvml->get_clock) || init() != 0 ||
      by_bus(bus, &nvml->handle) != 0) {
    return std::nullopt;
  }
  unsigned long long energy = 0;
  if (nvml->get_energy(nvml->handle, &energy) != 0) return std::nullopt;
  return GpuSensors(std::move(nvml));
}
#else
std::optional<GpuSensors> GpuSensors::open(c10::Device) {
  return std::nullopt;
}
#endif

double GpuSensors::joules() const {
  unsigned long long millijoules = 0;
  MT_CHECK(nvml_->get_energy(nvml_->handle, &millijoules) == 0, "NVML gives no energy");
  return static_cast<double>(millijoules) * 1e-3;
}

double GpuSensors::power_limit() const {
  unsigned milliwatts = 0;
  MT_CHECK(nvml_->get_limit(nvml_->handle, &milliwatts) == 0, "NVML gives no power limit");
  return milliwatts * 1e-3;
}

double GpuSensors::megahertz() const {
  constexpr int kMultiprocessors = 1;
  unsigned megahertz = 0;
  MT_CHECK(nvml_->get_clock(nvml_->handle, kMultiprocessors, &megahertz) == 0,
           "NVML gives no clock");
  return megahertz;
}

}  // namespace moetron
