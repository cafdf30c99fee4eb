#include "moetron/train/host_room.h"

#include <algorithm>
#include <limits>
#include <sstream>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/base/host_name.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/doctor/machine.h"

namespace moetron {

HostMemory this_host(int64_t needed) {
  return {host_name(), needed, available_memory({}).value_or(std::numeric_limits<int64_t>::max())};
}

HostMemory tightest_host(const HostMemory& mine, Communicator& world) {
  std::vector<HostMemory> hosts;
  const std::string text = concat(mine.needed, " ", mine.available, " ", mine.host);
  for (const std::string& told : gather_texts(world, text)) {
    std::istringstream words(told);
    HostMemory rank;
    words >> rank.needed >> rank.available >> rank.host;
    const auto found = std::find_if(hosts.begin(), hosts.end(),
                                    [&](const HostMemory& host) { return host.host == rank.host; });
    if (found == hosts.end()) {
      hosts.push_back(rank);
    } else {
      found->needed += rank.needed;
      found->available = std::min(found->available, rank.available);
    }
  }
  return *std::min_element(hosts.begin(), hosts.end(),
                           [](const HostMemory& a, const HostMemory& b) {
                             return a.available - a.needed < b.available - b.needed;
                           });
}

}  // namespace moetron
