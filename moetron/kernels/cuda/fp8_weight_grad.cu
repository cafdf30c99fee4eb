#include "moetron/kernels/cuda/fp8_launch.h"
#include "moetron/kernels/cuda/fp8_product.h"

namespace moetron {

void launch_fp8_weight_grad(const Fp8Gemm& gemm, cudaStream_t stream) {
  launch_fp8<Fp8Kernel</*kWeightGrad=*/true>>(gemm, stream);
}

}  // namespace moetron
