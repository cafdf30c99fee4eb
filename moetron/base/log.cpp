#include "moetron/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

namespace moetron {
namespace {

// The logger is the process's own, like its stderr: the one piece of global state here.
spdlog::logger& logger() {
  static spdlog::logger instance = [] {
    spdlog::logger made("moetron", std::make_shared<spdlog::sinks::stderr_color_sink_mt>());
    made.set_pattern("%H:%M:%S %^%v%$");
    made.flush_on(spdlog::level::info);
    return made;
  }();
  return instance;
}

}  // namespace

void init_log(int rank, int num_ranks) {
  if (num_ranks > 1) logger().set_pattern("%H:%M:%S rank " + std::to_string(rank) + ": %^%v%$");
  logger().set_level(rank == 0 ? spdlog::level::info : spdlog::level::warn);
}

void log_info(const std::string& message) {
  logger().info("{}", message);
}
void log_warning(const std::string& message) {
  logger().warn("warning: {}", message);
}
}  // namespace moetron
