// Launch of the kernel of adamw.h.
#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

#include "moetron/kernels/adamw_arguments.h"

namespace moetron {

// No two of the arrays overlap. Fast where all begin at multiples of 16 bytes (`rounded`: of 8).
void launch_adamw(const AdamWPointers& pointers, int64_t count, const AdamWCoefficients& c,
                  cudaStream_t stream);

}  // namespace moetron
