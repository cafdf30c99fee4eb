// Ranks as processes, over c10d's Gloo process group (TCP). Gloo moves the bytes; the reductions
// are done here, in rank order, so that they give the bits of the thread backend. Tensors of a GPU
// are copied to the host at issue and back at wait() (staging.h).
#pragma once

#include <memory>
#include <string>

#include "moetron/comm/communicator.h"
#include "moetron/comm/world_options.h"

namespace moetron {

using GlooOptions = WorldOptions;

// Returns when all ranks have joined. Binds to the interface GLOO_SOCKET_IFNAME where that is set,
// else to the address of this host's name. Throws ConfigError for ranks that never came (naming
// them), came twice, or count another world size.
std::unique_ptr<Communicator> make_gloo_world(const GlooOptions& options);

// Communicator::separate_world() of ranks that are processes: `world` describes the first world,
// whose store the second one uses under names of its own.
std::unique_ptr<Communicator> make_separate_gloo_world(const WorldOptions& world,
                                                       const std::string& key);

}  // namespace moetron
