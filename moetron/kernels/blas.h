// Products of bf16 factors, or of 8 bits, on a GPU by cuBLASLt, each shape with the algorithm that
// was measured to be its fastest. Only in builds with CUDA.
#pragma once

#include <ATen/core/Tensor.h>

namespace moetron {

struct BlasFactor {
  const at::Tensor& matrix;  // bf16, 2 dims, rows may be strided
  bool transposed = false;
};

// d [m, n] (bf16 or fp32) = a b, or += where `adds`; a is [m, k], b [k, n], each once transposed
// where it says so. No dim is zero. A shape starts with cuBLASLt's favourite algorithm; when it is
// written a second time, the likeliest ones are tried on the spot, waiting for the GPU, and the
// fastest stays. Under torch's deterministic algorithms the favourite stays.
void blas_product(const at::Tensor& d, BlasFactor a, BlasFactor b, bool adds);

// The same of E4M3 factors with their scales (kernels/fp8.h), both with what is summed along their
// rows: d [m, n] = a b^T; a with a scale for each 128 of a row, b for each block of 128 x 128.
// cuBLASLt wants more than our kernels do: has_fp8_blas tells of which it has products.
struct Fp8Factor {
  const at::Tensor& values;
  const at::Tensor& scales;
};
bool has_fp8_blas(const Fp8Factor& a, const Fp8Factor& b);
void fp8_blas_product(const at::Tensor& d, const Fp8Factor& a, const Fp8Factor& b, bool adds);

}  // namespace moetron
