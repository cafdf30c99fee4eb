// A communicator before another whose links it makes slow, for tests: of overlap, where time is the
// question, and of results that must not depend on it.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>

#include "moetron/comm/communicator.h"

namespace moetron {

// What an operation costs the rank that issues it: latency, plus the bytes that it sends
// (Operation::bytes_sent) over the bandwidth, plus a random time.
struct LinkSpeed {
  double bytes_per_second = std::numeric_limits<double>::infinity();
  double latency = 0;  // seconds
  double jitter = 0;   // seconds at most, drawn evenly for each operation
  uint64_t seed = 0;   // of the draws, which differ by rank
};

// Slows `world` and all groups made from it. Each communicator is a link of its own that carries
// one operation of a rank at a time, in the order of issue; only when its time has passed does the
// operation begin in the communicator behind. So a message arrives no earlier than its cost after
// it was sent, and a collective is done no earlier than its cost after the last rank joined it. A
// receive has no cost but jitter, for its sender pays; nor has anything in a group of one.
//
// For CPU backends whose operations may be issued from another thread and need no group_begin():
// thread, and gloo. A failure of the world is noticed in Work::wait().
std::unique_ptr<Communicator> slow_down(std::unique_ptr<Communicator> world,
                                        const LinkSpeed& speed);

}  // namespace moetron
