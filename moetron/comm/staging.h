// Operations on tensors of another device than the one their backend works on: of a GPU under gloo,
// of a CPU under nccl.
#pragma once

#include <functional>
#include <memory>

#include <ATen/core/Tensor.h>

#include "moetron/comm/operation.h"

namespace moetron {

using StartOperation =
    std::function<std::shared_ptr<PendingWork>(const std::shared_ptr<Operation>&)>;

// Calls `start` with `operation` where its tensors lie on `device`, else with copies of them there.
// What the operation reads is copied now: from a GPU after what is queued on its current stream,
// while the host waits. Its result is copied back in wait(): to a GPU on the current stream,
// without blocking the host. A Work dropped unwaited leaves the output as it was.
std::shared_ptr<PendingWork> run_staged(const std::shared_ptr<Operation>& operation,
                                        c10::Device device, const StartOperation& start);

}  // namespace moetron
