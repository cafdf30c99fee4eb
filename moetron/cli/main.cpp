// moetron COMMAND --options: parses, runs, and turns failures into one sentence and an exit code.
#include <cstdio>
#include <exception>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
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

int run(int argc, char** argv) {
  const ParsedCommandLine parsed = parse_command_line(argc, argv);
  if (parsed.help) {
    std::fputs(parsed.help_text.c_str(), stdout);
    return kExitDone;
  }
  return run_command(parsed);
}

}  // namespace

}  // namespace moetron

int main(int argc, char** argv) {
  try {
    return moetron::run(argc, argv);
  } catch (const moetron::Error& error) {
    std::fprintf(stderr, "moetron: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception& error) {
    if (const auto memory = moetron::describe_out_of_memory(error)) {
      std::fprintf(stderr, "moetron: %s\n", memory->c_str());
      return moetron::kExitConfig;
    }
    std::fprintf(stderr, "moetron: internal error: %s\n", moetron::first_line(error).c_str());
    return moetron::kExitInternal;
  }
}
