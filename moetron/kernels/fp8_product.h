// Matrix products of values in 8 bits (kernels/fp8.h): each 128 products are summed, multiplied by
// their scales, and these parts summed in fp32. On a GPU of E4M3 by cuBLASLt or a kernel of ours
// for Hopper, whose tensor cores round those 128 to about 14 bits; elsewhere by ATen's operators in
// fp32, which is the oracle of both. What a GPU sums over is a multiple of 16, the sizes of results
// are multiples of 8.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/fp8.h"

namespace moetron {

// Whether products in 8 bits can be computed there: on CPUs, and on GPUs of Hopper's kind.
bool has_fp8_products(c10::Device device);

// x [rows, in] times weight [out, in] -> [rows, out] of `dtype`: bf16 on a GPU. An input gradient
// is that of the turned weight.
at::Tensor fp8_product(const Fp8Rows& x, const Fp8Blocks& weight,
                       at::ScalarType dtype = at::kBFloat16);

// x [rows, in] times each group's weight [groups, out, in] -> [rows, out] of `dtype`. ends [groups]
// int32 on the device, where each group's rows end; rows behind the last are left as they are. On a
// GPU the host is not waited for.
at::Tensor fp8_grouped_rows_product(const Fp8Rows& x, const Fp8Blocks& weight,
                                    const at::Tensor& ends, at::ScalarType dtype = at::kBFloat16);

// sum [out, in] fp32 = d_y x^T, or += where `adds`, of columns_of() both: d_y [out, rows],
// x [in, rows].
void fp8_weight_grad_product(const at::Tensor& sum, const Fp8Blocks& d_y, const Fp8Blocks& x,
                             bool adds);

// The same for each group, sum [groups, out, in]; a group without rows gives zero. Both factors
// have the same groups, of the same ends. On a GPU the host is not waited for.
void fp8_grouped_weight_grad_product(const at::Tensor& sum, const Fp8Columns& d_y,
                                     const Fp8Columns& x, bool adds);

}  // namespace moetron
