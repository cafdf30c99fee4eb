// Work of one rank that takes longer than ranks wait for each other.
#pragma once

#include <functional>

namespace moetron {

class Communicator;

// As on_rank_zero(): the others look now and then whether it is done. `work` runs on a thread of
// its own and must not communicate; `world` may be null.
void on_rank_zero_for_long(Communicator* world, const std::function<void()>& work);

}  // namespace moetron
