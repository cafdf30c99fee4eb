// One matrix product of bf16 factors, or of scaled ones of 8 bits, by cuBLASLt, on raw pointers.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <memory>
#include <vector>

namespace moetron {

// kFp8: E4M3, with a scale for each 128 along what is summed, of every row of a and of 128 columns
// of b.
enum class BlasFactors { kBf16, kFp8 };

// a's scales lie [k / 128, m], b's [n / 128, k / 128], where k / 128 must be a multiple of 4. Null
// of bf16 factors.
struct BlasScales {
  const float* a = nullptr;
  const float* b = nullptr;
};

// d [m, n] = a b, or += ; every matrix lies row by row.
struct BlasShape {
  int device = 0;
  BlasFactors factors = BlasFactors::kBf16;
  int64_t m = 0, n = 0, k = 0;
  bool a_transposed = false;                                  // a lies as [k, m]; else as [m, k]
  bool b_transposed = false;                                  // b lies as [n, k]; else as [k, n]
  bool fp32_result = false;                                   // d is fp32; else bf16
  int64_t a_stride = 0, b_stride = 0, d_stride = 0;           // elements from row to row
  int64_t a_alignment = 0, b_alignment = 0, d_alignment = 0;  // bytes, a power of two
  auto operator<=>(const BlasShape&) const = default;
};

class BlasProduct {
 public:
  // Asks cuBLASLt for its `most` likeliest algorithms, of the current GPU. `scales`: as some run
  // will have them.
  BlasProduct(cublasLtHandle_t handle, const BlasShape& shape, int most, BlasScales scales);

  int size() const { return static_cast<int>(algorithms_.size()); }
  int64_t workspace_bytes(int algorithm) const;
  // Sums in fp32; what d held is kept and added to where `adds`.
  void run(int algorithm, const void* a, const void* b, BlasScales scales, void* d, bool adds,
           void* workspace, cudaStream_t stream) const;

 private:
  struct Destroy {
    void operator()(cublasLtMatmulDescOpaque_t* operation) const;
    void operator()(cublasLtMatrixLayoutOpaque_t* layout) const;
  };
  using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy>;
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy>;
  static Layout layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride);

  cublasLtHandle_t handle_;
  bool scaled_;
  Operation operation_;
  Layout first_, second_, result_;
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms_;
};

}  // namespace moetron
