// moetron plan --calibrate: measures this machine and writes a hardware file.
#include "moetron/bench/calibrate.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <string>
#include <system_error>
#include <unistd.h>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"
#include "moetron/bench/device_facts.h"
#include "moetron/cli/calibrate.h"
#include "moetron/cli/file_work.h"
#include "moetron/cli/rank_run.h"
#include "moetron/cli/run_findings.h"
#include "moetron/doctor/control_group.h"

namespace moetron {
namespace {

std::string today() {
  const std::time_t now = std::time(nullptr);
  std::tm date{};
  ::gmtime_r(&now, &date);
  char text[16] = {};
  std::strftime(text, sizeof(text), "%Y-%m-%d", &date);
  return text;
}

double host_memory() {
  const double whole =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  const auto limit = read_group_limits(SystemPaths{}).memory;
  return limit ? std::min(whole, static_cast<double>(*limit)) : whole;
}

CalibrationSettings settings_of(const Options& options, const RankEnvironment& environment) {
  const std::string& file = options.runtime.hardware;
  return {.seconds = options.plan.calibrate_seconds,
          .name = options.plan.name,
          .command = "moetron plan --calibrate",
          .date = today(),
          .place = {environment.local_rank, environment.local_size},
          .host_memory = host_memory(),
          .base = planned_hardware(options),
          .base_name = file.empty() ? "the built-in hardware" : file};
}

void check_name(const std::string& name) {
  const auto is_control = [](unsigned char c) { return c < 0x20 || c == 0x7f; };
  MT_CHECK_CONFIG(std::none_of(name.begin(), name.end(), is_control),
                  "name: a machine's name is one line of text");
}

}  // namespace

int run_calibration(const ParsedCommandLine& parsed) {
  check_name(parsed.options.plan.name);
  const RankEnvironment environment = read_rank_environment();
  init_log(environment.rank, environment.size);
  if (!environment.found.empty()) log_info(environment.found);
  return run_rank(parsed, environment, [&](Communicator& world, c10::Device device) {
    const Options& options = parsed.options;
    at::manual_seed(static_cast<uint64_t>(options.runtime.seed));
    const CalibrationSettings settings = settings_of(options, environment);
    const PlanOptions& plan = options.plan;
    const std::string file = !plan.out.empty() ? plan.out
                             : !plan.name.empty()
                                 ? hardware_file_name(plan.name, /*num_ranks=*/1)
                                 : hardware_file_name(device_facts(device).name, world.size());
    if (environment.rank == 0) check_output("out", file, "calibrate", is_measured_hardware);
    const Calibration found = calibrate(world, device, settings);
    if (environment.rank != 0) return kExitDone;
    FileWriter out(file);
    out.write(hardware_text(found.hardware, found.notes));
    out.commit();
    std::cout << "written: " << file << ", of " << found.hardware.name
              << "; --hardware takes it, of plan, simulate and pretrain --dry-run\n";
    return kExitDone;
  });
}

}  // namespace moetron
