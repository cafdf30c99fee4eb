// Work that one rank does for all: either every rank goes on, or every rank throws.
#pragma once

#include <cstdint>
#include <functional>

namespace moetron {

class Communicator;

// Rank 0 calls `work`, and every rank returns its result. If it throws, every rank throws an error
// of the same exit code and message. `world` may be null: a single rank.
int64_t on_rank_zero(Communicator* world, const std::function<int64_t()>& work);

}  // namespace moetron
