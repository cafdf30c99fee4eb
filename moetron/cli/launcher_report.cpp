#include "moetron/cli/launcher_report.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "moetron/base/json.h"

namespace moetron {

void tell_launcher(const std::string& cause) {
  const char* path = std::getenv("TORCHELASTIC_ERROR_FILE");
  if (path == nullptr) return;
  // As a Python program under torchrun would; the call stack is what the report shows.
  const Json report = {
      {"message",
       {{"message", cause},
        {"extraInfo",
         {{"py_callstack", cause}, {"timestamp", std::to_string(std::time(nullptr))}}}}}};
  std::ofstream(path) << report.dump(-1, ' ', true, Json::error_handler_t::replace);
}

void let_rank_zero_speak(int rank) {
  if (rank != 0) std::this_thread::sleep_for(std::chrono::seconds(1));
}

int leave_silently(int rank, const Error& error) {
  let_rank_zero_speak(rank);
  tell_launcher(error.what());
  return error.exit_code();
}

void say_failure(const std::string& cause) {
  std::fprintf(stderr, "moetron: %s\n", cause.c_str());
  tell_launcher(cause);
}

int leave_before_joining(const RankEnvironment& environment, const Greeting& greeting,
                         const Error& error) {
  if (environment.rank == 0) say_failure(error.what());
  refuse_to_connect(environment, greeting, error);
  return environment.rank == 0 ? error.exit_code() : leave_silently(environment.rank, error);
}

}  // namespace moetron
