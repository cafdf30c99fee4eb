// What `moetron simulate` does.
#pragma once

#include <iosfwd>

#include "moetron/config/options.h"

namespace moetron {

// Makes the schedule that the options describe, times it, and writes what comes out: a summary to
// read, or under json one JSON object. Draws it and writes its trace where the options ask. The
// options have passed validate(). Throws ConfigError, or InputError for the files it reads.
void run_simulation(const Options& options, std::ostream& out);

}  // namespace moetron
