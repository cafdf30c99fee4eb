// Launch of the kernel of packed_bounds.cu.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

constexpr int kMostTokenStrides = 9;  // of attention's tensors

struct PackedBoundsArgs {
  const int32_t* bounds;  // [documents + 1], ascending
  int documents;
  int sequences;     // >= documents: those behind them are empty, and begin where the last ends
  int32_t* lengths;  // [sequences]
  int64_t* begins;   // [num_strides, sequences + 1]: bounds times each stride
  int num_strides;
  int64_t strides[kMostTokenStrides];
};
void launch_packed_bounds(const PackedBoundsArgs& args, cudaStream_t stream);

}  // namespace moetron
