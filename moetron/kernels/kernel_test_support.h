// What the tests of kernels, and of what is made of them, share: where to run, random inputs, and
// how far two tensors lie apart.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#ifdef MOETRON_CUDA
#include <c10/cuda/CUDAFunctions.h>
#endif

#include "moetron/kernels/rounding.h"

namespace moetron {

inline bool has_gpu() {
#ifdef MOETRON_CUDA
  return c10::cuda::device_count() > 0;
#else
  return false;
#endif
}

// ||a - b|| / ||b|| in fp64. NaN passes no bound.
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor reference = b.cpu().to(at::kDouble);
  const double size = reference.norm().item<double>();
  const double error = (a.cpu().to(at::kDouble) - reference).norm().item<double>();
  return size == 0 ? error : error / size;
}

// Fresh normal numbers in bf16 on the GPU.
inline at::Tensor random_bf16(at::IntArrayRef sizes, double scale = 1) {
  return at::randn(sizes, at::TensorOptions(at::kCUDA).dtype(at::kFloat))
      .mul_(scale)
      .to(at::kBFloat16);
}

// What kernels write into must not depend on what was there before: fresh memory full of NaN.
// Freed at once, so that the next allocations of the caching allocator find it.
inline void poison_gpu_memory(int64_t bytes = int64_t{1} << 28) {
  at::full({bytes / 2}, std::numeric_limits<float>::quiet_NaN(),
           at::TensorOptions(at::kCUDA).dtype(at::kBFloat16));
}

}  // namespace moetron

#define SKIP_WITHOUT_GPU() \
  if (!moetron::has_gpu()) GTEST_SKIP() << "no GPU"
