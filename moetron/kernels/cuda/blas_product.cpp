#include "moetron/kernels/cuda/blas_product.h"

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr uint64_t kMostWorkspace = uint64_t{64} << 20;

void check_blas(cublasStatus_t status, const char* what) {
  MT_CHECK(status == CUBLAS_STATUS_SUCCESS, what, " failed with status ", status);
}

template <class T>
void set(cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t name,
         T value) {
  check_blas(cublasLtMatmulPreferenceSetAttribute(preference, name, &value, sizeof value),
             "cublasLtMatmulPreferenceSetAttribute");
}

template <class T>
void set(cublasLtMatmulDesc_t operation, cublasLtMatmulDescAttributes_t name, T value) {
  check_blas(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof value),
             "cublasLtMatmulDescSetAttribute");
}

// cuBLASLt's first factor is b, its second one a.
void set_scales(cublasLtMatmulDesc_t operation, BlasScales scales) {
  set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, scales.b);
  set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, scales.a);
}

}  // namespace

void BlasProduct::Destroy::operator()(cublasLtMatmulDescOpaque_t* operation) const {
  cublasLtMatmulDescDestroy(operation);
}

void BlasProduct::Destroy::operator()(cublasLtMatrixLayoutOpaque_t* layout) const {
  cublasLtMatrixLayoutDestroy(layout);
}

// Of a matrix that lies row by row: to cuBLASLt, which counts columns first, it is the transposed
// one.
BlasProduct::Layout BlasProduct::layout(cudaDataType_t type, int64_t rows, int64_t columns,
                                        int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  check_blas(cublasLtMatrixLayoutCreate(&made, type, columns, rows, stride),
             "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

// d^T = b^T a^T: cuBLASLt's first factor is b, its second one a.
BlasProduct::BlasProduct(cublasLtHandle_t handle, const BlasShape& shape, int most,
                         BlasScales scales)
    : handle_(handle), scaled_(shape.factors != BlasFactors::kBf16) {
  cublasLtMatmulDesc_t operation = nullptr;
  check_blas(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
             "cublasLtMatmulDescCreate");
  operation_.reset(operation);
  const cublasOperation_t first = shape.b_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  const cublasOperation_t second = shape.a_transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
  set(operation, CUBLASLT_MATMUL_DESC_TRANSA, first);
  set(operation, CUBLASLT_MATMUL_DESC_TRANSB, second);
  if (scaled_) {
    set(operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F);
    set(operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F);
    set_scales(operation, scales);
  }
  const cudaDataType_t type = scaled_ ? CUDA_R_8F_E4M3 : CUDA_R_16BF;
  first_ = shape.b_transposed ? layout(type, shape.n, shape.k, shape.b_stride)
                              : layout(type, shape.k, shape.n, shape.b_stride);
  second_ = shape.a_transposed ? layout(type, shape.k, shape.m, shape.a_stride)
                               : layout(type, shape.m, shape.k, shape.a_stride);
  result_ = layout(shape.fp32_result ? CUDA_R_32F : CUDA_R_16BF, shape.m, shape.n, shape.d_stride);

  cublasLtMatmulPreference_t preference = nullptr;
  check_blas(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                        decltype(&cublasLtMatmulPreferenceDestroy)>
      owner(preference, cublasLtMatmulPreferenceDestroy);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, kMostWorkspace);
  // Parts of a sum are joined in fp32, in a fixed order, and rounded once.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
      static_cast<uint32_t>(shape.b_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
      static_cast<uint32_t>(shape.a_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
      static_cast<uint32_t>(shape.d_alignment));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
      static_cast<uint32_t>(shape.d_alignment));

  algorithms_.resize(most);
  int found = 0;
  check_blas(
      cublasLtMatmulAlgoGetHeuristic(handle, operation, first_.get(), second_.get(), result_.get(),
                                     result_.get(), preference, most, algorithms_.data(), &found),
      "cublasLtMatmulAlgoGetHeuristic");
  algorithms_.resize(found);
  std::erase_if(algorithms_, [](const cublasLtMatmulHeuristicResult_t& algorithm) {
    return algorithm.state != CUBLAS_STATUS_SUCCESS;
  });
  MT_CHECK(!algorithms_.empty(), "cuBLASLt has no algorithm for a product of ", shape.m, " x ",
           shape.k, " and ", shape.k, " x ", shape.n);
}

int64_t BlasProduct::workspace_bytes(int algorithm) const {
  return static_cast<int64_t>(algorithms_[algorithm].workspaceSize);
}

void BlasProduct::run(int algorithm, const void* a, const void* b, BlasScales scales, void* d,
                      bool adds, void* workspace, cudaStream_t stream) const {
  const float alpha = 1, beta = adds ? 1 : 0;
  const cublasLtMatmulHeuristicResult_t& chosen = algorithms_[algorithm];
  cublasLtMatmulDescOpaque_t operation = *operation_;  // threads share it, and their scales differ
  if (scaled_) set_scales(&operation, scales);
  check_blas(cublasLtMatmul(handle_, &operation, &alpha, b, first_.get(), a, second_.get(), &beta,
                            d, result_.get(), d, result_.get(), &chosen.algo, workspace,
                            chosen.workspaceSize, stream),
             "cublasLtMatmul");
}

}  // namespace moetron
