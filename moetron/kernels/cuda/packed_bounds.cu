// The bounds of packed documents as cuDNN's attention reads them.
#include "moetron/kernels/cuda/grid.h"
#include "moetron/kernels/cuda/packed_bounds.h"

namespace moetron {
namespace {

constexpr int kThreads = 256;

__global__ void packed_bounds(const PackedBoundsArgs args) {
  const int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (i > args.sequences) return;
  const int32_t begin = args.bounds[min(i, args.documents)];
  if (i < args.sequences) args.lengths[i] = args.bounds[min(i + 1, args.documents)] - begin;
  for (int s = 0; s < args.num_strides; ++s) {
    args.begins[static_cast<int64_t>(s) * (args.sequences + 1) + i] = begin * args.strides[s];
  }
}

}  // namespace

void launch_packed_bounds(const PackedBoundsArgs& args, cudaStream_t stream) {
  packed_bounds<<<args.sequences / kThreads + 1, kThreads, 0, stream>>>(args);
  check_cuda(cudaGetLastError(), "packed_bounds");
}

}  // namespace moetron
