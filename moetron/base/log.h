// One line of log a call, on stderr, with time and rank. Only rank 0 of a run speaks below warning.
#pragma once

#include <string>

namespace moetron {

// Called once at start; num_ranks == 1 leaves the rank out of the line.
void init_log(int rank, int num_ranks);

void log_info(const std::string& message);     // rank 0 only
void log_warning(const std::string& message);  // every rank

}  // namespace moetron
