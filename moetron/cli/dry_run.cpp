#include "moetron/cli/dry_run.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"
#include "moetron/cli/nearest_fit.h"
#include "moetron/cli/run_findings.h"
#include "moetron/data/blend.h"
#include "moetron/plan/dry_run_report.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

void find_data(const Options& options, RunFindings& found) {
  if (options.data.mock_data) return;
  for (const std::string& prefix : parse_blend(options.data.data_path).prefixes)
    if (!path_exists(prefix + ".bin")) found.miss("data-path", prefix);
}

}  // namespace

void run_dry_run(Options options, int64_t world_size) {
  RunFindings found{
      .facts = {.world_size = world_size, .is_on_gpu = options.runtime.device != DeviceKind::kCpu}};
  find_model(options, found);
  validate(options, Command::kPretrain, world_size);
  find_vocabulary(options, found);
  find_data(options, found);
  const std::string& file = options.runtime.hardware;
  const Hardware hardware = planned_hardware(options);
  const RunSpec spec = resolve_run(options, found.facts);
  for (const std::string& remark : spec.remarks) log_info(remark);
  if (!found.absent.empty())
    std::printf("not here  %s%s\n", found.absent.c_str(), found.assumed.c_str());
  std::printf("dry run   as on %s (%s)\n", hardware.name.c_str(),
              file.empty() ? "built in" : file.c_str());
  const DryRun run = dry_run(spec, hardware);
  std::printf("%s\n", describe(run, spec, hardware).c_str());
  std::fflush(stdout);  // the last words go elsewhere
  if (!run.fits) {
    throw ConfigError(concat(describe_overflow(run.prediction.memory, hardware), "; ",
                             nearest_fit(options, found.facts, hardware)));
  }
}

}  // namespace moetron
