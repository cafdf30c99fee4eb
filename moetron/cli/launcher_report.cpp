#include "moetron/cli/launcher_report.h"

#include <chrono>
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

}  // namespace moetron
