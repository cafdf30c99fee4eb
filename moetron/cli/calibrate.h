// moetron plan --calibrate.
#pragma once

#include "moetron/config/command_line.h"

namespace moetron {

// As one of several ranks that measure their links, too, or alone. Returns the exit code; rank 0
// writes the file.
int run_calibration(const ParsedCommandLine& parsed);

}  // namespace moetron
