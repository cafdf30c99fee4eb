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

// Copies of a token, on average, that the ranks of an expert-parallel group receive together, the
// sender among them: as many come to each rank for each of its own tokens.
double received_copies(const RunSpec& spec);

// The dispatcher's own, an overlap kind's that of the plain one, or what holds where the file names
// none. That holds, too, where a simulation assumes another way to travel than the dispatcher's.
double dispatch_overhead(const ExpertsSpec& experts, const Hardware& hardware);

// Seconds of one dispatch or combine: the slower of both links, and the overhead. 0 with one rank.
double dispatch_time(const RunSpec& spec, const Hardware& hardware);

}  // namespace moetron
