// Whether the hosts of a run have the memory that all their ranks want at once.
#pragma once

#include <cstdint>
#include <string>

namespace moetron {

class Communicator;

struct HostMemory {
  std::string host;
  int64_t needed = 0;     // bytes that its ranks want
  int64_t available = 0;  // bytes that it has left

  bool operator==(const HostMemory&) const = default;
};

// What this rank wants of its host.
HostMemory this_host(int64_t needed);

// Of what every rank says of its own host, added up by host: the one that has least left when its
// ranks have what they want. Collective: the same on every rank.
HostMemory tightest_host(const HostMemory& mine, Communicator& world);

}  // namespace moetron
