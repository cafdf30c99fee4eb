#pragma once

#include <cstdint>
#include <cuda_runtime_api.h>

namespace moetron {

// sum [columns] += the rows of parts [rows, columns].
void launch_add_column_sums(const float* parts, float* sum, int64_t rows, int64_t columns,
                            cudaStream_t stream);

}  // namespace moetron
