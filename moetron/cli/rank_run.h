// A command whose ranks work together: how a rank joins the others, and how a failure of any of
// them becomes one report.
#pragma once

#include <functional>

#include "moetron/comm/communicator.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/command_line.h"

namespace moetron {

// What a rank does once all have met; returns the exit code.
using RankWork = std::function<int(Communicator& world, c10::Device device)>;

// Checks the options for the command, meets the other ranks and works. One rank tells of a failure,
// whichever had it. Returns the exit code; throws Error where this rank is alone.
int run_rank(const ParsedCommandLine& parsed, const RankEnvironment& environment,
             const RankWork& work);

}  // namespace moetron
