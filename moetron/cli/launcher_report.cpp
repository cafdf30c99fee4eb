#include "moetron/cli/launcher_report.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"
#include "moetron/checkpoint/checkpoint_folder.h"

namespace moetron {

namespace {

void write_report(const char* path, const Json& report) {
  std::ofstream(path) << report.dump(-1, ' ', true, Json::error_handler_t::replace);
}

bool holds_checkpoints(const std::filesystem::path& save) {
  try {
    return !save.empty() && !list_steps(save).empty();
  } catch (const InputError&) {
    return false;  // another failure is being told
  }
}

// Lines behind the first stand below it.
std::string indented(const std::string& cause) {
  std::string text;
  for (const char c : cause) text += c == '\n' ? std::string("\n          ") : std::string(1, c);
  return text;
}

}  // namespace

bool tell_launcher(const FailureReport& report) {
  if (const char* path = std::getenv(kLaunchReport)) {
    write_report(path, {{"rank", report.rank}, {"phase", report.phase}, {"cause", report.cause}});
    return true;
  }
  if (const char* path = std::getenv("TORCHELASTIC_ERROR_FILE")) {
    // As a Python program under torchrun would; the call stack is what the report shows.
    const std::string cause =
        report.phase.empty() ? report.cause : concat(report.phase, ": ", report.cause);
    write_report(
        path, {{"message",
                {{"message", cause},
                 {"extraInfo",
                  {{"py_callstack", cause}, {"timestamp", std::to_string(std::time(nullptr))}}}}}});
  }
  return false;
}

std::optional<FailureReport> read_report(const std::filesystem::path& file) {
  std::ifstream in(file);
  const Json read = Json::parse(in, /*callback=*/nullptr, /*allow_exceptions=*/false);
  if (!read.is_object()) return std::nullopt;
  return FailureReport{read.value("rank", -1), read.value("phase", ""), read.value("cause", "")};
}

std::string where_to_continue(const Options& options) {
  const std::filesystem::path save = options.checkpoint.save;
  if (save.empty()) return "";
  return holds_checkpoints(save)
             ? "the same command continues from the newest checkpoint in " + save.string()
             : "there is no checkpoint in --save to continue from";
}

std::string advice(const Options& options, int exit_code) {
  if (exit_code == kExitDoNotRestart) {
    return "the same command would end here again: look at the data of this step, or lower --lr";
  }
  if (exit_code == kExitConfig || exit_code == kExitCorruptInput)
    return "mend the cause, then run again";
  const std::string where = where_to_continue(options);
  if (where.empty()) return "mend the cause, then run again";
  return holds_checkpoints(options.checkpoint.save) ? where
                                                    : "mend the cause, then run again; " + where;
}

std::string failure_block(const std::string& rank, const std::string& phase,
                          const std::string& cause, const std::string& next) {
  return concat("\nmoetron: the run failed\n  rank    ", rank, "\n  phase   ", phase,
                "\n  cause   ", indented(cause), "\n  next    ", next, "\n");
}

void let_rank_zero_speak(int rank) {
  if (rank != 0) std::this_thread::sleep_for(std::chrono::seconds(1));
}

int leave_silently(int rank, const Error& error) {
  let_rank_zero_speak(rank);
  tell_launcher({rank, "", error.what()});
  return error.exit_code();
}

void say_failure(const std::string& cause) {
  if (!tell_launcher({-1, "", cause})) std::fprintf(stderr, "moetron: %s\n", cause.c_str());
}

int leave_before_joining(const RankEnvironment& environment, const Greeting& greeting,
                         const Error& error) {
  if (environment.rank == 0) say_failure(error.what());
  refuse_to_connect(environment, greeting, error);
  return environment.rank == 0 ? error.exit_code() : leave_silently(environment.rank, error);
}

}  // namespace moetron
