// The operations of a Communicator as calls of c10d's NCCL process group.
#pragma once

#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "moetron/comm/operation.h"

namespace moetron {

// Issues an operation of at least one byte, whose tensors lie on the group's GPU; a barrier's
// `output` is one element. Null between startCoalescing() and endCoalescing().
c10::intrusive_ptr<c10d::Work> issue_on_nccl(c10d::ProcessGroupNCCL& group,
                                             const Operation& operation);

}  // namespace moetron
