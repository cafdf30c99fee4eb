// Which experts a rank holds, and the ranks that it exchanges tokens with.
#pragma once

#include <cstdint>

#include "moetron/comm/communicator.h"

namespace moetron {

struct ExpertLayout {
  // The expert ranks: `ep` parts of the experts times `tpe` shards of each, shards fastest (as
  // Mesh::expert()). Null: this rank holds every expert whole.
  Communicator* group = nullptr;
  int64_t ep = 1;
  int64_t tpe = 1;
  int64_t num_experts = 0;  // of a layer, over all ranks

  int64_t rank() const { return group == nullptr ? 0 : group->rank(); }
  int64_t size() const { return ep * tpe; }
  int64_t ep_rank() const { return rank() / tpe; }
  int64_t tpe_rank() const { return rank() % tpe; }
  int64_t num_local() const { return num_experts / ep; }
  int64_t first_local() const { return ep_rank() * num_local(); }
};

}  // namespace moetron
