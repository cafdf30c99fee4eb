// The weight gradients of all experts in one kernel: CUTLASS's grouped product on Hopper's tensor
// cores, fed by bulk copies (TMA), with fp32 results written or added in place.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

struct GroupedWeightGrad {
  float* sum = nullptr;           // [groups, out, in]
  const void* d_y = nullptr;      // bf16 [rows, out]
  const void* x = nullptr;        // bf16 [rows, in]
  const int32_t* ends = nullptr;  // [groups], on the GPU
  int num_groups = 0, out = 0, in = 0;
  int64_t d_y_stride = 0, x_stride = 0;  // elements from row to row
  bool adds = false;
};

int64_t grouped_weight_grad_workspace_bytes(const GroupedWeightGrad& product);

// Addresses and rows lie at multiples of 16 bytes, the workspace at one of 128. The sums of a group
// without rows are zeroed, or kept where it adds.
void launch_grouped_weight_grad(const GroupedWeightGrad& product, void* workspace,
                                cudaStream_t stream);

}  // namespace moetron
