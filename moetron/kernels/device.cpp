#include "moetron/kernels/device.h"

#ifdef MOETRON_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace moetron {

#ifdef MOETRON_CUDA
bool is_gpu_bf16(const at::Tensor& x) {
  return x.is_cuda() && x.scalar_type() == at::kBFloat16;
}

cudaStream_t current_stream(const at::Tensor& x) {
  return c10::cuda::getCurrentCUDAStream(x.get_device()).stream();
}
#else
bool is_gpu_bf16(const at::Tensor&) {
  return false;
}
#endif

bool has_aligned_rows(const at::Tensor& x, int64_t size) {
  const auto bytes = static_cast<int64_t>(x.element_size());
  return size * bytes % 16 == 0 && reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

}  // namespace moetron
