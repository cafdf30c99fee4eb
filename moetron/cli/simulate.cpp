// moetron simulate: times a pipeline schedule without running it.
#include <iostream>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/config/validate.h"
#include "moetron/plan/run_simulation.h"

namespace moetron {

int run_simulate(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  validate(parsed.options, Command::kSimulate, /*world_size=*/1);
  run_simulation(parsed.options, std::cout);
  return kExitDone;
}

}  // namespace moetron
