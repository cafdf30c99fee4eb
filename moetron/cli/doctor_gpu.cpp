#include "moetron/cli/doctor_gpu.h"

#include <algorithm>

#include "moetron/base/parse_number.h"

#ifdef MOETRON_CUDA
#include <chrono>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <future>
#include <string>
#include <thread>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#endif

namespace moetron {

bool has_kernels_for(std::string_view architectures, int major, int minor) {
  while (!architectures.empty()) {
    const size_t end = std::min(architectures.find(','), architectures.size());
    std::string_view one = architectures.substr(0, end);
    architectures.remove_prefix(std::min(end + 1, architectures.size()));
    one = one.substr(0, one.find('-'));  // "90-real"
    const bool is_exact = one.ends_with('a');
    if (is_exact) one.remove_suffix(1);
    const auto number = parse_number<int>(one);
    if (!number || *number / 10 != major) continue;
    if (is_exact ? *number % 10 == minor : *number % 10 <= minor) return true;
  }
  return false;
}

#ifndef MOETRON_CUDA

GpuChecks check_gpus() {
  return {{ok("GPU", "no GPU build: this program computes on CPUs (make cuda builds the other)")}};
}

#else

namespace {

// Of a library that is loaded already, or of the driver's; null where it is not there.
template <class Function>
Function* find_function(void* library, const char* name) {
  return reinterpret_cast<Function*>(::dlsym(library, name));
}

std::string version_text(int version) {
  return formatted("%d.%d", version / 1000, version % 1000 / 10);
}

Check check_driver() {
  int driver = 0, runtime = 0, count = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  const std::string found = concat("driver for CUDA ", version_text(driver), ", program with CUDA ",
                                   version_text(runtime));
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess)
    return fail("GPU driver", concat(found, ": ", cudaGetErrorString(error)),
                driver == 0        ? "install the driver, or start the container with --gpus all"
                : driver < runtime ? "install a newer driver"
                                   : "look at nvidia-smi and at CUDA_VISIBLE_DEVICES");
  return ok("GPU driver", concat(found, ", ", count, count == 1 ? " GPU" : " GPUs"));
}

// They came with torch, so they are in the program already.
Check check_gpu_libraries() {
  std::string found;
  const auto add = [&](const std::string& text) { found += (found.empty() ? "" : ", ") + text; };
  if (const auto get = find_function<int(int*)>(RTLD_DEFAULT, "ncclGetVersion")) {
    int version = 0;
    get(&version);
    add(formatted("NCCL %d.%d.%d", version / 10000, version % 10000 / 100, version % 100));
  }
  if (const auto get = find_function<size_t()>(RTLD_DEFAULT, "cudnnGetVersion")) {
    const auto version = static_cast<int>(get());
    add(formatted("cuDNN %d.%d.%d", version / 10000, version % 10000 / 100, version % 100));
  }
  if (const auto get = find_function<size_t()>(RTLD_DEFAULT, "cublasLtGetVersion"))
    add(concat("cuBLASLt ", get()));
  if (found.empty())
    return fail("GPU libraries", "none is loaded", "install torch with its nvidia-* packages");
  return ok("GPU libraries", found);
}

// What the driver's NVML knows; nothing of it where it cannot be asked. Its functions as nvml.h
// declares them: each returns zero for success.
struct ManagedState {
  unsigned long long uncorrected = 0;  // errors of memory since the driver was loaded
  bool is_persistent = true;
};

ManagedState ask_driver(int device) {
  ManagedState state;
  char bus[32] = {};
  void* library = ::dlopen("libnvidia-ml.so.1", RTLD_NOW);  // stays loaded
  if (library == nullptr || cudaDeviceGetPCIBusId(bus, sizeof(bus), device) != cudaSuccess)
    return state;
  using Handle = struct Opaque*;
  const auto init = find_function<int()>(library, "nvmlInit_v2");
  const auto by_bus =
      find_function<int(const char*, Handle*)>(library, "nvmlDeviceGetHandleByPciBusId_v2");
  Handle handle = nullptr;
  if (init == nullptr || by_bus == nullptr || init() != 0 || by_bus(bus, &handle) != 0)
    return state;
  constexpr int kUncorrected = 1, kVolatile = 0;
  unsigned long long errors = 0;
  if (const auto get = find_function<int(Handle, int, int, unsigned long long*)>(
          library, "nvmlDeviceGetTotalEccErrors");
      get != nullptr && get(handle, kUncorrected, kVolatile, &errors) == 0)
    state.uncorrected = errors;
  int mode = 1;
  if (const auto get = find_function<int(Handle, int*)>(library, "nvmlDeviceGetPersistenceMode");
      get != nullptr && get(handle, &mode) == 0)
    state.is_persistent = mode != 0;
  return state;
}

Check check_gpu(int device) {
  const std::string name = concat("GPU ", device);
  cudaDeviceProp properties{};
  size_t free = 0, total = 0;
  cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error == cudaSuccess) error = cudaMemGetInfo(&free, &total);
  if (error != cudaSuccess)
    return fail(name, cudaGetErrorString(error), "look at dmesg (Xid) and reset the GPU");
  const std::string found = formatted(
      "%s, compute capability %d.%d, %.4g GiB, %.4g GiB free", properties.name, properties.major,
      properties.minor, static_cast<double>(total) / kGibi, static_cast<double>(free) / kGibi);
  if (!has_kernels_for(MOETRON_CUDA_ARCHITECTURES, properties.major, properties.minor))
    return fail(name, concat(found, "; kernels are built for sm_", MOETRON_CUDA_ARCHITECTURES),
                formatted("build with -DCMAKE_CUDA_ARCHITECTURES=%d%d", properties.major,
                          properties.minor));
  const ManagedState state = ask_driver(device);
  if (state.uncorrected > 0)
    return fail(name, concat(found, ", ", state.uncorrected, " errors of memory not corrected"),
                "drain the machine and reset the GPU");
  if (static_cast<double>(free) < 0.9 * static_cast<double>(total))
    return warn(name, found, "another program holds its memory: nvidia-smi names it");
  if (!state.is_persistent)
    return warn(name, concat(found, ", no persistence"), "nvidia-smi -pm 1, or starts are slow");
  return ok(name, found);
}

Check check_links(int count) {
  int num_pairs = 0, num_linked = 0;
  std::string missing;
  for (int a = 0; a < count; ++a) {
    for (int b = a + 1; b < count; ++b) {
      int reaches = 0;
      ++num_pairs;
      if (cudaDeviceCanAccessPeer(&reaches, a, b) == cudaSuccess && reaches != 0)
        ++num_linked;
      else if (missing.empty())
        missing = concat("GPUs ", a, " and ", b);
    }
  }
  const std::string found =
      concat(num_linked, " of ", num_pairs, " pairs reach each other's memory");
  if (!missing.empty())
    return warn("GPU links", concat(found, "; not ", missing),
                "look at nvidia-smi topo -m: without links they talk through the host");
  return ok("GPU links", found);
}

// NCCL as nccl.h declares it; each returns zero for success.
struct Nccl {
  using Comm = struct OpaqueComm*;
  int (*init_all)(Comm*, int, const int*) = nullptr;
  int (*all_reduce)(const void*, void*, size_t, int type, int op, Comm, cudaStream_t) = nullptr;
  int (*group_start)() = nullptr;
  int (*group_end)() = nullptr;
  int (*destroy)(Comm) = nullptr;
  const char* (*error_text)(int) = nullptr;

  bool find() {
    return (init_all =
                find_function<int(Comm*, int, const int*)>(RTLD_DEFAULT, "ncclCommInitAll")) &&
           (all_reduce =
                find_function<int(const void*, void*, size_t, int, int, Comm, cudaStream_t)>(
                    RTLD_DEFAULT, "ncclAllReduce")) &&
           (group_start = find_function<int()>(RTLD_DEFAULT, "ncclGroupStart")) &&
           (group_end = find_function<int()>(RTLD_DEFAULT, "ncclGroupEnd")) &&
           (destroy = find_function<int(Comm)>(RTLD_DEFAULT, "ncclCommDestroy")) &&
           (error_text = find_function<const char*(int)>(RTLD_DEFAULT, "ncclGetErrorString"));
  }
};

void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw ConfigError(cudaGetErrorString(error));
}

// Sums 1, 2, 4, ... of the GPUs. Throws ConfigError with the library's word. Empty: right.
std::string sum_over(int count) {
  constexpr int kFloat32 = 7, kSum = 0;
  Nccl nccl;
  if (!nccl.find()) return "NCCL is not loaded";
  const auto check = [&](int result) {
    if (result != 0) throw ConfigError(nccl.error_text(result));
  };
  const auto size = static_cast<size_t>(count);
  std::vector<Nccl::Comm> comms(size);
  std::vector<float*> values(size);
  check(nccl.init_all(comms.data(), count, nullptr));
  for (int device = 0; device < count; ++device) {
    const auto mine = static_cast<float>(1 << device);
    auto& value = values[static_cast<size_t>(device)];
    check_cuda(cudaSetDevice(device));
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&value), sizeof(float)));
    check_cuda(cudaMemcpy(value, &mine, sizeof(float), cudaMemcpyHostToDevice));
  }
  check(nccl.group_start());
  for (size_t i = 0; i < size; ++i)
    check(nccl.all_reduce(values[i], values[i], 1, kFloat32, kSum, comms[i], nullptr));
  check(nccl.group_end());
  std::string wrong;
  for (int device = 0; device < count; ++device) {
    float sum = 0;
    const auto i = static_cast<size_t>(device);
    check_cuda(cudaSetDevice(device));
    check_cuda(cudaMemcpy(&sum, values[i], sizeof(float), cudaMemcpyDeviceToHost));
    if (sum != static_cast<float>((1 << count) - 1))
      wrong = concat("GPU ", device, " has the sum ", sum);
    check_cuda(cudaFree(values[i]));
    check(nccl.destroy(comms[i]));
  }
  return wrong;
}

Check check_sum(int count, bool& is_stuck) {
  constexpr std::chrono::seconds kLimit{60};
  const std::string cure =
      "NCCL_DEBUG=INFO tells more; NCCL_P2P_DISABLE=1 shows whether it is the "
      "links";
  std::promise<std::string> promise;
  std::future<std::string> wrong = promise.get_future();
  const auto begin = std::chrono::steady_clock::now();
  std::thread([count, promise = std::move(promise)]() mutable {
    try {
      promise.set_value(sum_over(count));
    } catch (const std::exception& error) {
      promise.set_value(error.what());
    }
  }).detach();
  if (wrong.wait_for(kLimit) != std::future_status::ready) {
    is_stuck = true;
    return fail(
        "NCCL",
        concat("an all-reduce over ", count, " GPUs did not end within ", kLimit.count(), " s"),
        cure);
  }
  if (const std::string text = wrong.get(); !text.empty())
    return fail("NCCL", concat("an all-reduce over ", count, " GPUs: ", text), cure);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  return ok("NCCL", formatted("an all-reduce over %d GPUs is right, and with its start took %.2g s",
                              count, seconds.count()));
}

}  // namespace

GpuChecks check_gpus() {
  GpuChecks result;
  result.checks = {check_driver(), check_gpu_libraries()};
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return result;
  for (int device = 0; device < count; ++device) result.checks.push_back(check_gpu(device));
  if (count > 1) {
    result.checks.push_back(check_links(count));
    if (!has_failure(result.checks)) result.checks.push_back(check_sum(count, result.is_stuck));
  }
  return result;
}

#endif

}  // namespace moetron
