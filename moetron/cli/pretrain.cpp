// moetron pretrain: joins the run's other ranks, trains, and reports a failure once.
#include "moetron/train/pretrain.h"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <thread>

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/device.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

// The user's threads, or an equal share of the host's cores.
void set_threads(const Options& options, const RankEnvironment& environment) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t share = std::max<int64_t>(1, cores / environment.local_size);
  const int64_t wanted = options.runtime.num_threads;
  at::set_num_threads(static_cast<int>(wanted > 0 ? wanted : share));
}

// What the user can do about a failure, by its exit code.
std::string advice(const Options& options, int exit_code) {
  const std::filesystem::path save = options.checkpoint.save;
  if (exit_code == kExitDoNotRestart) {
    return "the same command would end here again: look at the data of this step, or lower --lr";
  }
  if (exit_code == kExitConfig || exit_code == kExitCorruptInput)
    return "mend the cause, then run again";
  std::error_code ignored;
  const bool may_continue = !save.empty() && std::filesystem::exists(save, ignored);
  return may_continue ? "the same command continues from the newest checkpoint in " + save.string()
                      : "mend the cause, then run again; there is no --save to continue from";
}

// Lines behind the first stand below it.
std::string indented(const std::string& cause) {
  std::string text;
  for (const char c : cause) text += c == '\n' ? std::string("\n          ") : std::string(1, c);
  return text;
}

void report_failure(Communicator& world, const Options& options, const std::string& cause,
                    int exit_code) {
  const std::string phase = world.phase().empty() ? "start" : world.phase();
  std::fprintf(
      stderr,
      "\nmoetron: the run failed\n  rank    %d of %d\n  phase   %s\n  cause   %s\n  next    %s\n",
      world.world_rank(), world.size(), phase.c_str(), indented(cause).c_str(),
      advice(options, exit_code).c_str());
  tell_launcher(phase == "start" ? cause : concat(phase, ": ", cause));
}

// Rank 0 tells of every failure, its own or that of a peer which reaches it as a CommError; another
// rank speaks only where rank 0 is the one that is gone.
int fail(Communicator& world, const Options& options, const std::string& cause, int exit_code) {
  world.abort(cause);
  if (world.world_rank() == 0) report_failure(world, options, cause, exit_code);
  let_rank_zero_speak(world.world_rank());
  return exit_code;
}

}  // namespace

int run_pretrain(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  try {
    say_notices(parsed);
    validate(options, Command::kPretrain, environment.size);
  } catch (const ConfigError& error) {
    if (environment.rank == 0) throw;  // all ranks find the same mistake: one says it
    return leave_silently(environment.rank, error);
  }
  set_threads(options, environment);
  at::globalContext().setDeterministicAlgorithms(options.runtime.deterministic,
                                                 /*warn_only=*/false);
  c10::Device device = c10::kCPU;
  std::unique_ptr<Communicator> world;
  try {
    device = choose_device(options.runtime.device, environment.local_rank);
    world = connect_world(options, environment, device);
  } catch (const Error&) {
    let_rank_zero_speak(environment.rank);  // each rank may fail alone, but most fail alike
    throw;
  }
  try {
    return pretrain(options, *world, device);
  } catch (const CommError& error) {
    const bool rank_zero_is_gone = error.failed_rank() <= 0 && error.first_to_notice();
    if (world->world_rank() == 0 || rank_zero_is_gone) {
      report_failure(*world, options, error.what(), error.exit_code());
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
