// What the environment says that changes runs.
#pragma once

#include <map>
#include <string>

#include "moetron/doctor/check.h"

namespace moetron {

using Variables = std::map<std::string, std::string>;

// Of this process.
Variables read_variables();

// Those that libraries of a run heed, with their values; a warning where one of them slows runs
// down, hides devices, or is set by Moetron itself.
Check check_variables(const Variables& variables);

// --comm-timeout (seconds) beside what the libraries are told of time.
Check check_time_outs(const Variables& variables, double comm_timeout);

}  // namespace moetron
