// Launches the kernels of fp8_gemm.h: tells the copy engine where the factors and scales lie.
#pragma once

#include <array>
#include <cuda.h>

#include "moetron/kernels/cuda/fp8_gemm.h"
#include "moetron/kernels/cuda/fp8_product.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {

// What the copy engine copies boxes of; the last dim first.
template <size_t kDims>
struct Fp8Map {
  const void* memory = nullptr;
  CUtensorMapDataType type;
  CUtensorMapSwizzle swizzle;
  std::array<cuuint64_t, kDims> sizes;
  std::array<cuuint64_t, kDims - 1> strides;  // bytes
  std::array<cuuint32_t, kDims> box;
};

template <size_t kDims>
CUtensorMap make_tensor_map(const Fp8Map<kDims>& map) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kVersion = 12000;  // of CUDA, the first that has it
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                              cudaEnableDefault, &found),
             "cuTensorMapEncodeTiled");
  MT_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
  std::array<cuuint32_t, kDims> steps;
  steps.fill(1);
  CUtensorMap made;
  const CUresult status = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      &made, map.type, kDims, const_cast<void*>(map.memory), map.sizes.data(), map.strides.data(),
      map.box.data(), steps.data(), CU_TENSOR_MAP_INTERLEAVE_NONE, map.swizzle,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  MT_CHECK(status == CUDA_SUCCESS, "no copies of [", map.sizes[1], ", ", map.sizes[0], "] by ",
           map.strides[0], " bytes: status ", static_cast<int>(status));
  return made;
}

// values [rows, k] in 8 bits, copied `box_rows` of 128 at a time.
inline CUtensorMap map_of_values(const void* values, int64_t rows, int k, int box_rows) {
  return make_tensor_map<2>({.memory = values,
                             .type = CU_TENSOR_MAP_DATA_TYPE_UINT8,
                             .swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
                             .sizes = {cuuint64_t(k), cuuint64_t(rows)},
                             .strides = {cuuint64_t(k)},
                             .box = {kFp8Size, cuuint32_t(box_rows)}});
}

// A matrix's scales [k / 128, rows], copied `box_rows` of one 128 at a time.
inline CUtensorMap map_of_scales(const Fp8Matrix& matrix, int64_t rows, int k, int box_rows) {
  return make_tensor_map<2>({.memory = matrix.scales,
                             .type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                             .swizzle = CU_TENSOR_MAP_SWIZZLE_NONE,
                             .sizes = {cuuint64_t(rows), cuuint64_t((k + kFp8Size - 1) / kFp8Size)},
                             .strides = {cuuint64_t(matrix.scale_stride) * 4},
                             .box = {cuuint32_t(box_rows), 1}});
}

// fp32 [groups, m, n], of which each group's are copied alone.
inline CUtensorMap map_of_results(const Fp8Gemm& gemm, int box_rows, int box_columns) {
  const auto m = cuuint64_t(gemm.m), n = cuuint64_t(gemm.n);
  return make_tensor_map<3>({.memory = gemm.result,
                             .type = CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
                             .swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
                             .sizes = {n, m, cuuint64_t(gemm.num_groups)},
                             .strides = {n * 4, m * n * 4},
                             .box = {cuuint32_t(box_columns), cuuint32_t(box_rows), 1}});
}

template <class Kernel>
void launch_fp8(const typename Kernel::Arguments& args, cudaStream_t stream) {
  check_cuda(
      cudaFuncSetAttribute(fp8_gemm_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           kFp8SharedBytes<Kernel>),
      "cudaFuncSetAttribute");
  const auto blocks = static_cast<unsigned>(num_multiprocessors() / 2 * 2);
  fp8_gemm_kernel<Kernel><<<blocks, kFp8Threads, kFp8SharedBytes<Kernel>, stream>>>(args);
  check_cuda(cudaGetLastError(), "fp8_gemm_kernel");
}

}  // namespace moetron
