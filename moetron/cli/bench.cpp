// moetron bench WHAT: measures on this machine.
#include <iostream>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/bench/benchmark.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/device.h"

namespace moetron {

int run_bench(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  const Options& options = parsed.options;
  if (options.runtime.num_threads > 0)
    at::set_num_threads(static_cast<int>(options.runtime.num_threads));
  at::globalContext().setDeterministicAlgorithms(options.runtime.deterministic,
                                                 /*warn_only=*/false);
  run_benchmark(options, choose_device(options.runtime.device, /*local_rank=*/0), std::cout);
  return kExitDone;
}

}  // namespace moetron
