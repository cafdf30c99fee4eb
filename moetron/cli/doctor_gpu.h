// What `moetron doctor` asks of GPUs. A build without CUDA has one line to say.
#pragma once

#include <string_view>
#include <vector>

#include "moetron/doctor/check.h"

namespace moetron {

struct GpuChecks {
  std::vector<Check> checks;
  // A thread waits in NCCL for good: only _Exit() ends the process.
  bool is_stuck = false;
};

// Driver and libraries, every GPU, the links between them, and one all-reduce over all of them.
GpuChecks check_gpus();

// Whether kernels that were built for the architectures ("90a,100") run on a GPU of this compute
// capability: those of "90a" on 9.0 alone, those of "90" on 9.0 and the later ones of 9.
bool has_kernels_for(std::string_view architectures, int major, int minor);

}  // namespace moetron
