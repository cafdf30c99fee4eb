// What the machine itself gives a run: processors, memory, limits, clock, and the programs that a
// run uses if they are there.
#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <sys/resource.h>
#include <vector>

#include "moetron/doctor/check.h"
#include "moetron/doctor/control_group.h"

namespace moetron {

// `num_cores`: as nproc counts them.
Check check_processor(const SystemPaths& paths, int num_cores);
Check check_memory(const SystemPaths& paths);
// Bytes that processes can still have: what the machine has available, and what the control groups
// leave of theirs. Nothing where /proc does not tell.
std::optional<int64_t> available_memory(const SystemPaths& paths);
// Where ranks of one machine exchange what they send each other.
Check check_shared_memory(const SystemPaths& paths);

// Of this process: open files, locked memory, stack, core files.
std::vector<Check> check_limits(const SystemPaths& paths);
// Of a given limit of open files.
Check check_open_files(const rlimit& limit);

// Whether it can be right, and whether the system says that it is kept right.
Check check_clock(std::time_t now);
// Draws a PNG and an SVG.
Check check_gnuplot();
// Whether the one that the environment names is there, which other programs complain of.
Check check_locale();

}  // namespace moetron
