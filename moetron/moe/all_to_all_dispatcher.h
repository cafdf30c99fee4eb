// The dispatchers that send tokens only where they are needed.
#pragma once

#include <memory>

#include "moetron/moe/dispatchers.h"

namespace moetron {

// A copy of a token for each choice, or (deduplicates) one for each rank that holds any of its
// experts: then partial sums travel back, and the token's rank adds them in rank order.
std::unique_ptr<Dispatcher> make_all_to_all_dispatcher(const DispatcherSettings& settings,
                                                       bool deduplicates);

}  // namespace moetron
