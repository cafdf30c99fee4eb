// Launches the kernel of fp8_gemm.h: tells the copy engine where the factors and scales lie.
#pragma once

#include <algorithm>
#include <cuda.h>

#include "moetron/kernels/cuda/fp8_gemm.h"
#include "moetron/kernels/cuda/fp8_product.h"
#include "moetron/kernels/cuda/grid.h"

namespace moetron {

// What the copy engine copies tiles of: rows of `columns` numbers.
struct Fp8Map {
  const void* memory = nullptr;
  bool is_fp32 = false;  // scales; else numbers of 8 bits, whose tiles are swizzled
  int64_t rows = 0, columns = 0, stride = 0;
  int tile_rows = 0, tile_columns = 0;
};

inline CUtensorMap make_tensor_map(const Fp8Map& map) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  constexpr unsigned kVersion = 12000;  // of CUDA, the first that has it
  check_cuda(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, kVersion,
                                              cudaEnableDefault, &found),
             "cuTensorMapEncodeTiled");
  MT_CHECK(found == cudaDriverEntryPointSuccess, "the driver has no cuTensorMapEncodeTiled");
  const cuuint64_t sizes[2] = {static_cast<cuuint64_t>(map.columns),
                               static_cast<cuuint64_t>(map.rows)};
  const cuuint64_t strides[1] = {static_cast<cuuint64_t>(map.stride) * (map.is_fp32 ? 4 : 1)};
  const cuuint32_t tile[2] = {static_cast<cuuint32_t>(map.tile_columns),
                              static_cast<cuuint32_t>(map.tile_rows)};
  const cuuint32_t steps[2] = {1, 1};
  CUtensorMap made;
  const CUresult status = reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function)(
      &made, map.is_fp32 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
      const_cast<void*>(map.memory), sizes, strides, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      map.is_fp32 ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  MT_CHECK(status == CUDA_SUCCESS, "no copies of [", map.rows, ", ", map.columns, "] by ",
           map.stride, " numbers: status ", static_cast<int>(status));
  return made;
}

template <class Kernel>
void launch_fp8(const Fp8Gemm& gemm, cudaStream_t stream) {
  const auto values = [&](const Fp8Matrix& matrix, int64_t rows, int tile_rows) {
    return make_tensor_map({.memory = matrix.values,
                            .rows = rows,
                            .columns = gemm.k,
                            .stride = gemm.k,
                            .tile_rows = tile_rows,
                            .tile_columns = Kernel::kDepth});
  };
  const auto scales = [&](const Fp8Matrix& matrix, int64_t rows) {
    return make_tensor_map({.memory = matrix.scales,
                            .is_fp32 = true,
                            .rows = (gemm.k + Kernel::kDepth - 1) / Kernel::kDepth,
                            .columns = rows,
                            .stride = matrix.scale_stride,
                            .tile_rows = 1,
                            .tile_columns = Kernel::kSize});
  };
  const int64_t b_rows = int64_t{gemm.n} * (Kernel::kWeightGrad ? 1 : gemm.num_groups);
  const CUtensorMap a_scales = scales(gemm.a, gemm.m);
  const Fp8Maps maps{.a = values(gemm.a, gemm.m, Kernel::kSize / 2),
                     .b = values(gemm.b, b_rows, Kernel::kSize),
                     .a_scales = a_scales,
                     .b_scales = Kernel::kWeightGrad ? scales(gemm.b, gemm.n) : a_scales};
  check_cuda(
      cudaFuncSetAttribute(fp8_gemm_kernel<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           Kernel::kSharedBytes),
      "cudaFuncSetAttribute");
  const auto blocks = static_cast<unsigned>(num_multiprocessors() / 2 * 2);
  fp8_gemm_kernel<Kernel><<<blocks, Kernel::kThreads, Kernel::kSharedBytes, stream>>>(maps, gemm);
  check_cuda(cudaGetLastError(), "fp8_gemm_kernel");
}

}  // namespace moetron
