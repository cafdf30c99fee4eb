// moetron COMMAND --options: parses, runs, and turns failures into one sentence and an exit code.
#include <cstdio>
#include <exception>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/base/shrunk_file.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/launcher_report.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/config/command_line.h"
#include "moetron/train/out_of_memory.h"

namespace moetron {
namespace {

int run_command(const ParsedCommandLine& parsed) {
  switch (parsed.command) {
    case Command::kPretrain:
      return run_pretrain(parsed);
    case Command::kPreprocess:
      return run_preprocess(parsed);
    case Command::kGenerate:
      return run_generate(parsed);
    case Command::kSimulate:
      return run_simulate(parsed);
    case Command::kCompareLoss:
      return run_compare_loss(parsed);
    case Command::kPlot:
      return run_plot(parsed);
    case Command::kBench:
      return run_bench(parsed);
  }
  throw InternalError("unknown command");
}

int rank_of_environment() {
  try {
    return read_rank_environment().rank;
  } catch (const ConfigError&) {
    return 0;  // whoever does not know its rank speaks
  }
}

int run(int argc, char** argv) {
  ParsedCommandLine parsed;
  try {
    parsed = parse_command_line(argc, argv);
  } catch (const Error& error) {
    const int rank = rank_of_environment();
    if (rank == 0) throw;  // all ranks find the same mistakes: one says them
    return leave_silently(rank, error);
  }
  if (parsed.help) {
    std::fputs(parsed.help_text.c_str(), stdout);
    return kExitDone;
  }
  return run_command(parsed);
}

// The run's last words, and its exit code.
int say(const std::string& cause, int exit_code) {
  std::fprintf(stderr, "moetron: %s\n", cause.c_str());
  tell_launcher(cause);
  return exit_code;
}

}  // namespace

}  // namespace moetron

int main(int argc, char** argv) {
  moetron::report_shrunk_files();
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
