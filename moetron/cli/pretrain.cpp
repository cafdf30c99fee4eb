// moetron pretrain: joins the run's other ranks, trains, and reports a failure once.
#include "moetron/train/pretrain.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <thread>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/cli/commands.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/validate.h"

namespace moetron {
namespace {

// The user's threads, or an equal share of the host's cores.
void set_threads(const Options& options, const RankEnvironment& environment) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t share = std::max<int64_t>(1, cores / environment.local_size);
  const int64_t wanted = options.runtime.num_threads;
  at::set_num_threads(static_cast<int>(wanted > 0 ? wanted : share));
}

void report_failure(Communicator& world, const std::string& cause) {
  std::fprintf(stderr,
               "\nmoetron: training failed\n"
               "  rank    %d of %d\n"
               "  phase   %s\n"
               "  cause   %s\n"
               "  next    mend the cause, then run the same command: it continues from the last "
               "checkpoint\n",
               world.world_rank(), world.size(), world.phase().c_str(), cause.c_str());
}

}  // namespace

int run_pretrain(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  say_notices(parsed);
  validate(options, Command::kPretrain, environment.size);
  set_threads(options, environment);
  at::globalContext().setDeterministicAlgorithms(options.runtime.deterministic,
                                                 /*warn_only=*/false);
  const auto timeout =
      std::chrono::milliseconds(static_cast<int64_t>(options.runtime.comm_timeout * 1000));
  const auto world = connect_gloo(environment, timeout, timeout);
  try {
    return pretrain(options, *world);
  } catch (const ConfigError& error) {
    // Every rank finds the same mistake: one of them says it.
    if (world->rank() == 0) throw;
    return error.exit_code();
  } catch (const CommError& error) {
    if (error.first_to_notice()) report_failure(*world, error.what());
    return error.exit_code();
  } catch (const Error& error) {
    if (world->size() == 1) throw;
    report_failure(*world, error.what());
    world->abort(error.what());
    return error.exit_code();
  }
}

}  // namespace moetron
