// One matrix product of bf16 factors by cuBLASLt, on raw pointers.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <memory>
#include <vector>

namespace moetron {

// d [m, n] = a b, or += ; every matrix lies row by row.
struct BlasShape {
  int device = 0;
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
  // Asks cuBLASLt for its `most` likeliest algorithms, of the current GPU.
  BlasProduct(cublasLtHandle_t handle, const BlasShape& shape, int most);

  int size() const { return static_cast<int>(algorithms_.size()); }
  int64_t workspace_bytes(int algorithm) const;
  // Sums in fp32; what d held is kept and added to where `adds`.
  void run(int algorithm, const void* a, const void* b, void* d, bool adds, void* workspace,
           cudaStream_t stream) const;

 private:
  struct Destroy {
    void operator()(cublasLtMatmulDescOpaque_t* operation) const;
    void operator()(cublasLtMatrixLayoutOpaque_t* layout) const;
  };
  using Operation = std::unique_ptr<cublasLtMatmulDescOpaque_t, Destroy>;
  using Layout = std::unique_ptr<cublasLtMatrixLayoutOpaque_t, Destroy>;
  static Layout layout(cudaDataType_t type, int64_t rows, int64_t columns, int64_t stride);

  cublasLtHandle_t handle_;
  Operation operation_;
  Layout first_, second_, result_;
  std::vector<cublasLtMatmulHeuristicResult_t> algorithms_;
};

}  // namespace moetron
