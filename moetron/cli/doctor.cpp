// moetron doctor: looks at the machine before a run; one line for each thing, with the cure.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <dlfcn.h>
#include <filesystem>
#include <optional>
#include <sched.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <torch/version.h>

#include "moetron/base/error.h"
#include "moetron/base/host_name.h"
#include "moetron/base/parse_number.h"
#include "moetron/checkpoint/save_lock.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/compute_threads.h"
#include "moetron/cli/doctor_gpu.h"
#include "moetron/comm/rendezvous.h"
#include "moetron/doctor/environment.h"
#include "moetron/doctor/machine.h"
#include "moetron/doctor/network.h"
#include "moetron/doctor/storage.h"

namespace moetron {
namespace {

constexpr std::chrono::seconds kNetworkLimit{5};

int count_cores() {
  cpu_set_t cores;
  const bool is_known = ::sched_getaffinity(0, sizeof(cores), &cores) == 0;
  return is_known ? CPU_COUNT(&cores) : 1;
}

// The library tells with which settings it was built, its version among them.
std::optional<std::string> loaded_torch_version() {
  constexpr std::string_view kKey = "TORCH_VERSION=";
  const std::string config = at::show_config();
  const size_t at = config.find(kKey);
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + kKey.size();
  return config.substr(begin, config.find_first_of(", \n", begin) - begin);
}

Check check_libtorch() {
  const std::optional<std::string> loaded = loaded_torch_version();
  Dl_info place{};
  ::dladdr(reinterpret_cast<const void*>(&at::show_config), &place);
  const std::string found =
      concat("built with ", TORCH_VERSION, ", loaded ", loaded.value_or("an unknown version"),
             " from ", place.dli_fname != nullptr ? place.dli_fname : "an unknown place",
             ", CPU operators for ", at::get_cpu_capability());
  if (loaded && *loaded != TORCH_VERSION)
    return fail("libtorch", found, "install the version that the program was built with");
  return ok("libtorch", found);
}

bool second_lock_is_refused(const std::filesystem::path& folder) {
  const SaveLock lock(folder);
  if (!lock.is_held()) return false;
  try {
    const SaveLock second(folder);
    return false;
  } catch (const ConfigError&) {
    return true;
  }
}

Check check_threads(const Options& options, const RankEnvironment& environment, int num_cores) {
  const std::string found = set_compute_threads(options, environment);
  const int count = at::get_num_threads() * environment.local_size;
  if (count > num_cores)
    return warn("threads",
                concat(found, ", ", count, " on ", num_cores, num_cores == 1 ? " core" : " cores"),
                concat("--num-threads ", std::max(1, num_cores / environment.local_size)));
  return ok("threads", found);
}

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Before a launcher has started anything: where the nodes of the environment are to meet.
void check_launch_on_nodes(std::vector<Check>& checks) {
  constexpr int kScriptsPort = 7000;  // examples/start_ranks.sh
  const std::string address = variable("MASTER_ADDR");
  if (address.empty()) return;
  const auto port = parse_number<int>(variable("MASTER_PORT"));
  checks.push_back(check_meeting_place(address, port.value_or(kScriptsPort), kNetworkLimit));
}

// What the ranks of a run would go by; and where they meet, if that is said.
void check_launcher(const Options& options, int num_cores, std::vector<Check>& checks) {
  RankEnvironment environment;
  try {
    environment = read_rank_environment();
    checks.push_back(ok("launcher", environment.found.empty() ? "none: a run would have one rank"
                                                              : environment.found));
  } catch (const ConfigError& error) {
    checks.push_back(fail("launcher", error.what(),
                          "start ranks with moetron launch, torchrun, "
                          "srun or mpirun, or unset the variable"));
    return;
  }
  if (!environment.master_address.empty())
    checks.push_back(
        check_meeting_place(environment.master_address, environment.master_port, kNetworkLimit));
  if (environment.found.empty()) check_launch_on_nodes(checks);
  checks.push_back(check_threads(options, environment, num_cores));
}

std::vector<Check> check_host(const Options& options, int num_cores) {
  const SystemPaths paths;
  std::vector<Check> checks = {check_processor(paths, num_cores), check_memory(paths),
                               check_shared_memory(paths)};
  for (Check& check : check_limits(paths)) checks.push_back(std::move(check));
  if (!options.checkpoint.save.empty())
    checks.push_back(check_storage(options.checkpoint.save, second_lock_is_refused));
  for (Check& check : std::vector{check_clock(std::time(nullptr)), check_gnuplot(), check_locale(),
                                  check_libtorch()})
    checks.push_back(std::move(check));
  return checks;
}

}  // namespace

int run_doctor(const ParsedCommandLine& parsed) {
  const Options& options = parsed.options;
  const int num_cores = count_cores();
  std::vector<Check> checks = check_host(options, num_cores);
  GpuChecks gpus = check_gpus();
  for (Check& check : gpus.checks) checks.push_back(std::move(check));
  checks.push_back(check_host_name(host_name(), kNetworkLimit));
  check_launcher(options, num_cores, checks);
  const Variables variables = read_variables();
  checks.push_back(check_time_outs(variables, options.runtime.comm_timeout));
  checks.push_back(check_variables(variables));

  if (options.report.json) {
    std::printf("%s\n", to_json_text(checks).c_str());
  } else {
    for (const Check& check : checks) std::printf("%s\n", describe(check).c_str());
    std::printf("%s\n", summary(checks).c_str());
  }
  const int exit_code = has_failure(checks) ? kExitConfig : kExitDone;
  if (gpus.is_stuck) {
    std::fflush(nullptr);
    std::_Exit(exit_code);
  }
  return exit_code;
}

}  // namespace moetron
