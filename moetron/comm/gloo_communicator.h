// Ranks as processes on CPUs, over c10d's Gloo process group (TCP). Gloo moves the bytes; the
// reductions are done here, in rank order, so that they give the bits of the thread backend.
#pragma once

#include <chrono>
#include <memory>

#include <c10/util/intrusive_ptr.h>

#include "moetron/comm/communicator.h"

namespace c10d {
class Store;
}

namespace moetron {

struct GlooOptions {
  c10::intrusive_ptr<c10d::Store> store;  // shared by the ranks, and new: no key of another run
  int rank = 0;
  int size = 1;
  std::chrono::milliseconds timeout = std::chrono::minutes(10);       // of a wait for peers
  std::chrono::milliseconds join_timeout = std::chrono::minutes(10);  // for all ranks to come
  bool serves_store = false;        // this process serves it, and leaves last
  bool agent_serves_store = false;  // the launcher does; for messages
};

// Returns when all ranks have joined. Binds to the interface GLOO_SOCKET_IFNAME where that is set,
// else to the address of this host's name. Throws ConfigError for ranks that never came (naming
// them), came twice, or count another world size.
std::unique_ptr<Communicator> make_gloo_world(const GlooOptions& options);

}  // namespace moetron
