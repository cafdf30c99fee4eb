#include "moetron/cli/compute_threads.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>
#include <unistd.h>

#include <ATen/Parallel.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

// Less than a millisecond: operations that follow each other find their threads awake.
constexpr const char* kSpins = "4000";

}  // namespace

void let_waiting_threads_sleep(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error || ::setenv("GOMP_SPINCOUNT", kSpins, /*overwrite=*/0) != 0) return;
  ::execv(program.c_str(), argv);
}

std::string set_compute_threads(const Options& options, const RankEnvironment& environment,
                                int num_gpus) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t share = std::max<int64_t>(1, cores / environment.local_size);
  const int64_t asked = options.runtime.num_threads;
  int64_t openmp = environment.omp_num_threads;
  std::string source = "its share of the cores";
  if (openmp == 1 && std::getenv("TORCHELASTIC_RUN_ID") != nullptr && share > 1) {
    if (num_gpus > 0 && options.runtime.device != DeviceKind::kCpu) {
      openmp = 0;
      source += "; the OMP_NUM_THREADS=1 that torchrun sets where it is not set is for CPUs alone";
    } else {
      source = concat(
          "OMP_NUM_THREADS, which torchrun sets where it is not set; a rank's share of the cores "
          "is ",
          share);
    }
  } else if (openmp > 0) {
    source = "OMP_NUM_THREADS";
  }
  if (asked > 0) source = "--num-threads";
  const int64_t count = asked > 0 ? asked : openmp > 0 ? openmp : share;
  at::set_num_threads(static_cast<int>(count));
  return concat(count, count == 1 ? " compute thread" : " compute threads", " a rank: ", source);
}

}  // namespace moetron
