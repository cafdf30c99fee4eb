// Work that ranks do for each other: either every rank goes on, or every rank throws.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace moetron {

class Communicator;

// Rank 0 calls `work`, and every rank returns its result. If it throws, every rank throws an error
// of the same exit code and message. `world` may be null: a single rank.
int64_t on_rank_zero(Communicator* world, const std::function<int64_t()>& work);

// Every rank calls `work`, which must not communicate, and gets the results of all, by rank. If any
// throws, every rank throws an error of the exit code and message of the lowest rank that failed.
std::vector<int64_t> on_all_ranks(Communicator* world, const std::function<int64_t()>& work);

}  // namespace moetron
