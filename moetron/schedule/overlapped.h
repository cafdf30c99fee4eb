// An interleaved schedule in which forwards run beside backwards: an assumption of the simulator.
#pragma once

#include "moetron/schedule/schedule.h"

namespace moetron {

// Every B and the F behind it become a block, as under Megatron's
// --overlap-moe-expert-parallel-comm. As there, several pipeline ranks need several virtual stages
// each, whose warm-up is long enough for blocks; one rank may have 1f1b. Throws ConfigError for
// another schedule. Moetron's executor gets its blocks from dualpipev.
void overlap_neighbours(Schedule& schedule);

}  // namespace moetron
