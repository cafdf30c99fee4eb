#include "moetron/kernels/cuda/column_sums.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {
namespace {

constexpr int kColumns = 32;  // of a block: a warp reads 128 bytes of a row
constexpr int kStrips = 32;   // rows that a block reads at once

__global__ void __launch_bounds__(kColumns* kStrips)
    rms_norm_column_sums_kernel(const float* parts, float* sum, int64_t rows, int64_t columns) {
  __shared__ float strips[kStrips][kColumns + 1];
  const int64_t column = int64_t{blockIdx.x} * kColumns + threadIdx.x;
  float total = 0;
  if (column < columns) {
#pragma unroll 8
    for (int64_t row = threadIdx.y; row < rows; row += kStrips) {
      total += parts[row * columns + column];
    }
  }
  strips[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  // Warp y joins the strips of column y.
  float joined = strips[threadIdx.x][threadIdx.y];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    joined += __shfl_xor_sync(0xffffffffu, joined, offset);
  }
  const int64_t own = int64_t{blockIdx.x} * kColumns + threadIdx.y;
  if (threadIdx.x == 0 && own < columns) sum[own] += joined;
}

}  // namespace

void launch_add_column_sums(const float* parts, float* sum, int64_t rows, int64_t columns,
                            cudaStream_t stream) {
  if (rows == 0 || columns == 0) return;
  const auto blocks = static_cast<unsigned>((columns + kColumns - 1) / kColumns);
  rms_norm_column_sums_kernel<<<blocks, dim3(kColumns, kStrips), 0, stream>>>(parts, sum, rows,
                                                                              columns);
  check_cuda(cudaGetLastError(), "rms_norm_column_sums_kernel");
}

}  // namespace moetron
