// Launch of the kernels of grad_norm.h.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

struct GradNormArgs {
  const int64_t* blocks;  // [num_blocks, 2]: address of fp32 elements and how many
  int64_t num_blocks;
  const int64_t* first_blocks;  // [num_slices + 1]
  int64_t num_slices;
  double* partial;  // [num_blocks]
  double* sums;     // [num_slices]: of squares
};
void launch_grad_norm(const GradNormArgs& args, cudaStream_t stream);

}  // namespace moetron
