// moetron simulate: times a pipeline schedule without running it.
#include <iostream>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/plan/run_simulation.h"
#include "moetron/run/resolve.h"

namespace moetron {

int run_simulate(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  run_simulation(resolve_simulation(parsed.options), std::cout);
  return kExitDone;
}

}  // namespace moetron
