// The sum over the rows of a small matrix: how the parts of a weight's gradient that blocks of a
// kernel have written become one.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/operators.h"

namespace moetron {

// sum [columns] fp32 += the rows of parts [rows, columns] fp32, in a fixed order.
void add_column_sums(const at::Tensor& sum, const at::Tensor& parts,
                     Operators operators = Operators::kFastest);

}  // namespace moetron
