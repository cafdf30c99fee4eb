// moetron simulate: times a pipeline schedule without running it.
#include <iostream>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/plan/run_simulation.h"
#include "moetron/run/resolve.h"
#include "moetron/train/start.h"

namespace moetron {

int run_simulate(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  const Options& options = parsed.options;
  const bool has_model =
      options.simulate.cost == SimulatedCosts::kModel && !options.checkpoint.load.empty();
  RunFacts facts;
  if (has_model) find_model(resolve_start(options), facts);
  run_simulation(resolve_simulation(options, facts), std::cout);
  return kExitDone;
}

}  // namespace moetron
