// Runs a function as `size` ranks, each a thread of this process: how every parallel feature is
// tested on a CPU.
#pragma once

#include <chrono>
#include <functional>

#include "moetron/comm/communicator.h"

namespace moetron {

// Calls `rank_main` once per rank with its world, and returns when all have returned.
//
// The first exception that leaves a rank poisons the world, so that the others do not wait for it,
// and is thrown again here, as it was, once all have ended. A wait longer than `timeout` fails: by
// default it ends what hangs, and leaves a slow machine its time.
//
// Rank threads compute on one thread each (at::get_num_threads() is 1 in them, and as it was in the
// caller afterwards). Thread-local switches of libtorch, grad mode above all, start at their
// defaults in each rank: a NoGradGuard around run_ranks does not reach inside.
void run_ranks(int size, const std::function<void(Communicator& world)>& rank_main,
               std::chrono::milliseconds timeout = std::chrono::minutes(5));

// The same, where the worlds come from `join(rank)`, called in the rank's thread: other backends.
void run_ranks_with(int size, const std::function<std::unique_ptr<Communicator>(int rank)>& join,
                    const std::function<void(Communicator& world)>& rank_main);

}  // namespace moetron
