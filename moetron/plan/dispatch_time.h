// How long tokens travel to their experts.
#pragma once

#include "moetron/plan/hardware.h"
#include "moetron/run/run_spec.h"

namespace moetron {

// Bytes that a rank sends (or, in an all-gather, receives) in one dispatch, on average over evenly
// used experts. A combine is the same the other way.
struct DispatchVolume {
  double node = 0;     // to ranks of its node
  double network = 0;  // to other nodes
};
DispatchVolume dispatch_volume(const RunSpec& spec, int64_t gpus_per_node);

// Seconds of one dispatch or combine: the slower of both links, and the overhead. 0 with one rank.
double dispatch_time(const RunSpec& spec, const Hardware& hardware);

}  // namespace moetron
