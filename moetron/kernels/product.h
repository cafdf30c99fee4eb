// Matrix products: of bf16 factors on a GPU by cuBLASLt, each shape with its fastest algorithm, and
// by CUTLASS or ATen for groups of rows; by ATen elsewhere, and where `operators` are plain. Weight
// gradients go straight into the fp32 accumulator, and the router's logits are not rounded.
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/kernels/operators.h"

namespace moetron {

// sum [out, in] fp32 = d_y^T x, or += where `adds`. d_y [rows, out], x [rows, in], of one dtype;
// rows may be strided.
void weight_grad_product(const at::Tensor& sum, const at::Tensor& d_y, const at::Tensor& x,
                         bool adds, Operators operators = Operators::kFastest);

// x [rows, in], weight [out, in], both bf16 or fp32 -> [rows, out] fp32, the exact products summed
// in fp32.
at::Tensor product_in_fp32(const at::Tensor& x, const at::Tensor& weight,
                           Operators operators = Operators::kFastest);

// x [..., in] times weight -> [..., out], of their dtype: weight [out, in] where it is transposed
// (a layer's forward), [in, out] where not (its input gradient).
at::Tensor product(const at::Tensor& x, const at::Tensor& weight, bool transpose_weight,
                   Operators operators = Operators::kFastest);

// x [rows, in] times each group's weight -> [rows, out], of their dtype: weight [groups, out, in]
// where it is transposed, [groups, in, out] where not. ends [groups] int32 on the device, where
// each group's rows end; rows behind the last are left as they are. All contiguous, x and weight
// with rows at multiples of 16 bytes. Of bf16 on a GPU the host is not waited for.
at::Tensor grouped_rows_product(const at::Tensor& x, const at::Tensor& weight,
                                const at::Tensor& ends, bool transpose_weight);

// Whether grouped_weight_grad_product takes these: bf16 on a GPU, sizes and addresses aligned to 16
// bytes.
bool has_grouped_weight_grad(const at::Tensor& d_y, const at::Tensor& x);

// sum [groups, out, in] fp32 = d_y^T x for each group's rows, or += where `adds`; a group without
// rows gives zero. d_y [rows, out], x [rows, in]; ends [groups] int32 on the device, where each
// group's rows end. The host is not waited for.
void grouped_weight_grad_product(const at::Tensor& sum, const at::Tensor& d_y, const at::Tensor& x,
                                 const at::Tensor& ends, bool adds);

}  // namespace moetron
