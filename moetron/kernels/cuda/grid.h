// Grids of blocks that loop over their work.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cuda_runtime_api.h>

#include "moetron/base/error.h"

namespace moetron {

inline void check_cuda(cudaError_t status, const char* what) {
  MT_CHECK(status == cudaSuccess, what, ": ", cudaGetErrorString(status));
}

// Of the current GPU.
inline int64_t num_multiprocessors() {
  int device = 0, count = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return count;
}

// At most `most` blocks for `units` of work, so many that each has the same number of units or one
// less: memory-bound blocks then end together.
inline int64_t even_grid(int64_t units, int64_t most) {
  const int64_t rounds = std::max<int64_t>(1, (units + most - 1) / most);
  return (units + rounds - 1) / rounds;
}

}  // namespace moetron
