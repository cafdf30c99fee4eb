// What `moetron simulate` does.
#pragma once

#include <iosfwd>

#include "moetron/run/run_spec.h"

namespace moetron {

// Makes the schedule that is asked for, times it, and writes what comes out: a summary to read, or
// one JSON object. Draws it and writes its trace where that is asked for. Throws ConfigError, or
// InputError for the files it reads.
void run_simulation(const SimulationSpec& spec, std::ostream& out);

}  // namespace moetron
