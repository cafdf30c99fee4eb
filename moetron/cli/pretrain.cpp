// moetron pretrain and sft: join the run's other ranks, train, and report a failure once.
#include "moetron/train/pretrain.h"

#include <csignal>
#include <cstdio>
#include <filesystem>

#include <ATen/Context.h>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/compute_threads.h"
#include "moetron/cli/device.h"
#include "moetron/cli/dry_run.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/cli/sample_answers.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/join_ranks.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/run/resolve.h"
#include "moetron/train/check_layout.h"
#include "moetron/train/conversations.h"
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

// Before a run, or in its place: whoever starts all of its ranks has one of them check.
int check_before_run(const ParsedCommandLine& parsed, const RankEnvironment& environment) {
  if (environment.rank != 0) return kExitDone;
  const RuntimeOptions& runtime = parsed.options.runtime;
  const int64_t num_ranks = runtime.world_size.value_or(environment.size);
  say_notices(parsed);
  validate(parsed.options, Command::kPretrain, num_ranks);
  run_layout_check(parsed.options, num_ranks, runtime.device == DeviceKind::kCuda);
  return kExitDone;
}

}  // namespace

int run_pretrain(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  std::signal(SIGPIPE, SIG_IGN);  // whoever read our lines may go: the run goes on
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  if (!environment.found.empty()) log_info(environment.found);
  if (options.runtime.dry_run) {
    if (environment.rank != 0) return kExitDone;
    say_notices(parsed);
    run_dry_run(options, parsed.command, options.runtime.world_size.value_or(environment.size));
    return kExitDone;
  }
  if (options.runtime.check_layout) return check_before_run(parsed, environment);
  const Greeting greeting{greeting_text(options_record(options), environment.size),
                          name_difference};
  try {
    say_notices(parsed);
    validate(options, parsed.command, environment.size);
  } catch (const ConfigError& error) {
    return leave_before_joining(environment, greeting, error);
  }
  log_info(set_compute_threads(options, environment));
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
  std::vector<SampleQuestion> questions;  // on rank 0, of a model that is fine-tuned
  int code = kExitDone;
  try {
    code = pretrain(options, *world, device, environment.rank == 0 ? &questions : nullptr);
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
  world.reset();  // what follows is rank 0's alone
  if (code == kExitDone && !questions.empty()) show_sample_answers(options, questions, device);
  return code;
}

}  // namespace moetron
