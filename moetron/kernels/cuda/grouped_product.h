// The products of all experts with their rows in one kernel, as grouped_weight_grad.h does their
// weight gradients.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

struct GroupedProduct {
  void* y = nullptr;              // bf16 [rows, out], contiguous, as all below
  const void* x = nullptr;        // bf16 [rows, in]
  const void* weight = nullptr;   // bf16 [groups, in, out], or [groups, out, in] where transposed
  const int32_t* ends = nullptr;  // [groups], on the GPU
  int num_groups = 0, out = 0, in = 0;
  bool transposed = false;
  bool along_columns = false;  // the order of tiles, which changes the time alone
};

int64_t grouped_product_workspace_bytes(const GroupedProduct& product);

// Addresses lie at multiples of 16 bytes, `in` and `out` are multiples of 8; the workspace lies at
// one of 128 bytes.
void launch_grouped_product(const GroupedProduct& product, void* workspace, cudaStream_t stream);

}  // namespace moetron
