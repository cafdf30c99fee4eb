#include "moetron/kernels/cuda/fp8_launch.h"
#include "moetron/kernels/cuda/fp8_product.h"

namespace moetron {

void launch_fp8_product(const Fp8Gemm& gemm, cudaStream_t stream) {
  launch_fp8<Fp8Kernel</*kWeightGrad=*/false>>(gemm, stream);
}

}  // namespace moetron
