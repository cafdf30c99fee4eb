// The dispatchers that send every token to every rank, and the one that sends none.
#pragma once

#include <memory>

#include "moetron/moe/dispatchers.h"

namespace moetron {

// Every expert is on this rank.
std::unique_ptr<Dispatcher> make_local_dispatcher(const DispatcherSettings& settings);

// fused: hidden, experts and probabilities travel in one gather of packed rows, and the two
// reductions of dispatch's backward in one batch.
std::unique_ptr<Dispatcher> make_gather_dispatcher(const DispatcherSettings& settings, bool fused);

}  // namespace moetron
