// The effect of one operation when all its parts lie in one address space.
#pragma once

#include <memory>
#include <vector>

#include "moetron/comm/operation.h"

namespace moetron {

// `parts` by rank of the group; of a message, {send, recv}. Throws InternalError when the parts do
// not belong together, naming what differs.
void execute_together(const std::vector<std::shared_ptr<Operation>>& parts);

}  // namespace moetron
