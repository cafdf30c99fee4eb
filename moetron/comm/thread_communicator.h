// Ranks as threads of one process, for tests and for a world of one. Operations meet in shared
// slots; the rank that arrives last does the work for all, so an operation is done as soon as it
// has been issued everywhere, in whatever order its Works are waited for. Waiters sleep.
#pragma once

#include <chrono>
#include <memory>

#include "moetron/comm/communicator.h"

namespace moetron {

class ThreadWorld;  // what the rank threads share

// A world for `size` rank threads. An operation that some rank has not issued `timeout` after
// another began to wait for it poisons the world, and the message names the missing ranks.
std::shared_ptr<ThreadWorld> make_thread_world(int size, std::chrono::milliseconds timeout);

// Rank `rank`'s communicator; each rank is taken once, and used by one thread at a time.
std::unique_ptr<Communicator> join_thread_world(const std::shared_ptr<ThreadWorld>& world,
                                                int rank);

}  // namespace moetron
