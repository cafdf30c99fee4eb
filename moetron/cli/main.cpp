// moetron COMMAND --options: parses, runs, and turns failures into one sentence and an exit code.
#include <csignal>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <string_view>

#include "moetron/base/build.h"
#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/base/shrunk_file.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/compute_threads.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/command_line.h"
#include "moetron/config/option_table.h"
#include "moetron/train/out_of_memory.h"

namespace moetron {
namespace {

int run_command(const ParsedCommandLine& parsed) {
  switch (parsed.command) {
    case Command::kPretrain:
    case Command::kSft:
      return run_pretrain(parsed);
    case Command::kPreprocess:
      return run_preprocess(parsed);
    case Command::kGenerate:
      return run_generate(parsed);
    case Command::kChat:
      return run_chat(parsed);
    case Command::kSimulate:
      return run_simulate(parsed);
    case Command::kExplain:
      return run_explain(parsed);
    case Command::kPlan:
      return run_plan(parsed);
    case Command::kCompareLoss:
      return run_compare_loss(parsed);
    case Command::kPlot:
      return run_plot(parsed);
    case Command::kConvert:
      return run_convert(parsed);
    case Command::kCompare:
      return run_compare(parsed);
    case Command::kBench:
      return run_bench(parsed);
    case Command::kLaunch:
      return run_launch(parsed);
    case Command::kDemo:
      return run_demo(parsed);
    case Command::kDoctor:
      return run_doctor(parsed);
  }
  throw InternalError("unknown command");
}

// Whether the command has operators of the engine work on several threads.
bool computes(const ParsedCommandLine& parsed) {
  const Command command = parsed.command;
  const bool trains = command == Command::kPretrain || command == Command::kSft;
  return (trains && !parsed.options.runtime.dry_run) || command == Command::kGenerate ||
         command == Command::kBench || parsed.options.plan.calibrate;
}

// Of a command whose ranks wait for each other, the others hear of a mistake that one rank alone
// has made.
int refuse_command_line(int argc, char** argv, const Error& error) {
  RankEnvironment environment;
  try {
    environment = read_rank_environment();
  } catch (const ConfigError&) {  // whoever does not know its rank speaks for itself
  }
  const std::string_view word = argc > 1 ? argv[1] : "";
  const bool has_peers = std::ranges::any_of(command_table(), [&](const CommandSpec& spec) {
    return spec.name == word && spec.command && has_ranks(*spec.command);
  });
  if (has_peers) return leave_before_joining(environment, {}, error);
  if (environment.rank != 0) return leave_silently(environment.rank, error);
  say_failure(error.what());
  return error.exit_code();
}

int run(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    std::printf("moetron %s\n", build_identity().c_str());
    return kExitDone;
  }
  ParsedCommandLine parsed;
  try {
    parsed = parse_command_line(argc, argv);
  } catch (const Error& error) {
    return refuse_command_line(argc, argv, error);
  }
  if (parsed.help) {
    std::fputs(parsed.help_text.c_str(), stdout);
    return kExitDone;
  }
  // Starting once more takes a quarter of a second: those that do not compute go without.
  if (computes(parsed)) let_waiting_threads_sleep(argv);
  return run_command(parsed);
}

int say(const std::string& cause, int exit_code) {
  say_failure(cause);
  return exit_code;
}

}  // namespace

}  // namespace moetron

int main(int argc, char** argv) {
  moetron::report_shrunk_files();
  // A write beyond a limit on the size of files then fails, like one to a full disk.
  std::signal(SIGXFSZ, SIG_IGN);
  try {
    return moetron::run(argc, argv);
  } catch (const moetron::Error& error) {
    return moetron::say(error.what(), error.exit_code());
  } catch (const std::filesystem::filesystem_error& error) {
    return moetron::say(moetron::describe(error), moetron::kExitCorruptInput);
  } catch (const std::exception& error) {
    if (const auto memory = moetron::describe_out_of_memory(error)) {
      return moetron::say(*memory, moetron::kExitConfig);
    }
    return moetron::say("internal error: " + moetron::first_line(error), moetron::kExitInternal);
  }
}
