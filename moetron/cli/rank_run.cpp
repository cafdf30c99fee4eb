#include "moetron/cli/rank_run.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include <ATen/Context.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/compute_threads.h"
#include "moetron/cli/device.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/comm/join_ranks.h"
#include "moetron/run/resolve.h"
#include "moetron/train/same_start.h"

namespace moetron {
namespace {

constexpr const char* kStart = "start";  // the phase before there is any

std::string phase_of(const Communicator& world) {
  return world.phase().empty() ? kStart : world.phase();
}

// `failed`: the rank that failed; -1 where nobody knows.
void report_failure(int failed, int rank, int num_ranks, const std::string& phase,
                    const Options& options, const std::string& cause, int exit_code) {
  if (tell_launcher({failed, phase == kStart ? "" : phase, cause})) return;
  std::fputs(
      failure_block(concat(rank, " of ", num_ranks), phase, cause, advice(options, exit_code))
          .c_str(),
      stderr);
}

void report_failure(Communicator& world, int failed, const Options& options,
                    const std::string& cause, int exit_code) {
  report_failure(failed, world.world_rank(), world.size(), phase_of(world), options, cause,
                 exit_code);
}

// Ranks that do not fit together, or one that cannot come: rank 0 tells, where it is there.
int refused(const JoinRefused& error, const RankEnvironment& environment, const Options& options) {
  if (environment.rank != 0 && error.rank_zero_knows()) {
    return leave_silently(environment.rank, error);
  }
  report_failure(-1, environment.rank, environment.size, kStart, options, error.what(),
                 error.exit_code());
  return error.exit_code();
}

// Rank 0 tells of every failure, its own or that of a peer which reaches it as a CommError; another
// rank speaks only where rank 0 is the one that is gone.
int fail(Communicator& world, const Options& options, const std::string& cause, int exit_code) {
  world.abort(cause);
  if (world.world_rank() == 0) {
    report_failure(world, 0, options, cause, exit_code);
  } else {
    tell_launcher({world.world_rank(), world.phase(), cause});
  }
  let_rank_zero_speak(world.world_rank());
  return exit_code;
}

}  // namespace

int run_rank(const ParsedCommandLine& parsed, const RankEnvironment& environment,
             const RankWork& work) {
  const Options& options = parsed.options;
  const Greeting greeting{greeting_text(options_record(options), environment.size),
                          name_difference};
  try {
    say_notices(parsed);
    validate(options, parsed.command, environment.size);
  } catch (const ConfigError& error) {
    return leave_before_joining(environment, greeting, error);
  }
  const std::string threads = set_compute_threads(options, environment);
  const bool answers = parsed.command == Command::kGenerate || parsed.command == Command::kChat;
  if (!answers) log_info(threads);  // what they print is the model's
  at::globalContext().setDeterministicAlgorithms(options.runtime.deterministic,
                                                 /*warn_only=*/false);
  c10::Device device = c10::kCPU;
  std::unique_ptr<Communicator> world;
  try {
    device = choose_device(options.runtime.device, environment.local_rank);
    world = connect_world(options, environment, device, greeting);
  } catch (const JoinRefused& error) {
    return refused(error, environment, options);
  } catch (const StoreError&) {
    let_rank_zero_speak(environment.rank);  // each rank may fail alone, but most fail alike
    throw;
  } catch (const ConfigError& error) {
    return leave_before_joining(environment, greeting, error);
  }
  try {
    return work(*world, device);
  } catch (const CommError& error) {
    const bool rank_zero_is_gone = error.failed_rank() <= 0 && error.first_to_notice();
    if (world->world_rank() == 0 || rank_zero_is_gone) {
      report_failure(*world, error.failed_rank(), options, error.what(), error.exit_code());
    }
    let_rank_zero_speak(world->world_rank());
    return error.exit_code();
  } catch (const Error& error) {
    if (world->size() == 1) throw;
    return fail(*world, options, error.what(), error.exit_code());
  } catch (const std::filesystem::filesystem_error& error) {
    return fail(*world, options, describe(error), kExitCorruptInput);
  } catch (const std::exception& error) {
    return fail(*world, options, "internal error: " + first_line(error), kExitInternal);
  }
}

}  // namespace moetron
