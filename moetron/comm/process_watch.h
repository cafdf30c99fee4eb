// The thread that exchanges failures with other ranks by the store (process_world.h).
#pragma once

#include <memory>

#include "moetron/comm/process_world.h"

namespace moetron {

// Runs until watch->stop. Only this thread touches the store once all ranks are connected, on
// `store`, a connection of its own: a store that hangs must not hang its rank.
void run_watch(const std::shared_ptr<ProcessWatch>& watch,
               const c10::intrusive_ptr<c10d::Store>& store);

}  // namespace moetron
