// The arithmetic of reductions on CPUs: element by element in the order of the inputs, so that the
// bits depend neither on which rank computes nor on how a message is cut.
#pragma once

#include <cstdint>
#include <span>

#include <c10/core/ScalarType.h>

#include "moetron/comm/communicator.h"

namespace moetron {

// output[i] = inputs[0][i] op inputs[1][i] op ...; all hold `num_elements` of `type`. `output` may
// be one of the inputs. fp16 and bf16 are reduced in fp32 and rounded once. Throws InternalError
// for types without an order (bool, complex).
void reduce_in_order(c10::ScalarType type, ReduceOp op, void* output,
                     std::span<const void* const> inputs, int64_t num_elements);

}  // namespace moetron
