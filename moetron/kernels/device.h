// What every bridge from tensors to kernels asks.
#pragma once

#include <ATen/core/Tensor.h>

#ifdef MOETRON_CUDA
#include <cuda_runtime_api.h>
#endif

namespace moetron {

// Whether x is bf16 on a GPU and this is a build with CUDA.
bool is_gpu_bf16(const at::Tensor& x);
// Whether rows of `size` elements of x's dtype begin at multiples of 16 bytes, in x's own memory.
bool has_aligned_rows(const at::Tensor& x, int64_t size);

#ifdef MOETRON_CUDA
// The stream that ATen's operators use now, on x's GPU.
cudaStream_t current_stream(const at::Tensor& x);
#endif

}  // namespace moetron
