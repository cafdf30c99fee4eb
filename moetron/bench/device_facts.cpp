#include "moetron/bench/device_facts.h"

#include <ATen/Parallel.h>

#include "moetron/base/error.h"

#ifdef MOETRON_CUDA
#include <cuda_runtime_api.h>
#endif

namespace moetron {
namespace {

DeviceFacts cpu_facts() {
  const int threads = at::get_num_threads();
  return {concat("CPU, ", threads, threads == 1 ? " core" : " cores"), 0,
          static_cast<double>(threads)};
}

#ifdef MOETRON_CUDA
DeviceFacts gpu_facts(c10::Device device) {
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, device.index());
  MT_CHECK(error == cudaSuccess, "no properties of ", device, ": ", cudaGetErrorString(error));
  // What it shows, which is less than what is soldered on it.
  return {properties.name, static_cast<double>(properties.totalGlobalMem),
          static_cast<double>(properties.multiProcessorCount)};
}
#endif

}  // namespace

DeviceFacts device_facts(c10::Device device) {
#ifdef MOETRON_CUDA
  if (device.is_cuda()) return gpu_facts(device);
#endif
  MT_CHECK(device.is_cpu(), "a build without CUDA knows nothing of ", device);
  return cpu_facts();
}

}  // namespace moetron
