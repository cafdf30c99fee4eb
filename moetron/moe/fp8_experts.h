// The routed experts' products in 8 bits (kernels/fp8.h).
#pragma once

#include <ATen/core/Tensor.h>

#include "moetron/moe/grouped_product.h"
#include "moetron/pipeline/value.h"

namespace moetron {

class SegmentRun;

// down(swiglu(gate_up(x)) * probability) for rows sorted by expert, of weights that are multiplied
// in 8 bits. rows: data [rows, hidden] of the weights' dtype or, unless weight gradients have
// factors of that, in 8 bits with scales [rows, tiles]; probabilities [rows] fp32 -> [rows,
// hidden]. Its gradient may be in 8 bits as well. Kept for the backward are the rows in 8 bits,
// unless weight gradients have factors of the weights' dtype, and gate_up's result, which
// `recomputes` leaves out.
at::Tensor fp8_expert_mlp(const Value& rows, const at::Tensor& probabilities,
                          const RowGroups& groups, Parameter& gate_up, Parameter& down,
                          bool recomputes, SegmentRun& run);

}  // namespace moetron
