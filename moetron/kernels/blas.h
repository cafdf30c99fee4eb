// Products of bf16 factors on a GPU by cuBLASLt, each shape with the algorithm that was measured to
// be its fastest. Only in builds with CUDA.
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

}  // namespace moetron
