// moetron plan: searches for the fastest layout of a run that fits, or measures the machine.
#include <filesystem>
#include <iostream>

#include <nlohmann/json.hpp>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/formatted.h"
#include "moetron/base/log.h"
#include "moetron/base/units.h"
#include "moetron/cli/calibrate.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/file_work.h"
#include "moetron/cli/run_findings.h"
#include "moetron/config/applied_settings.h"
#include "moetron/config/toml_file.h"
#include "moetron/plan/plan_report.h"

namespace moetron {
namespace {

constexpr const char* kWritten = "# The fastest layout that `moetron plan` found";

void write_run(const Options& options, const ParsedCommandLine& parsed, const SearchResult& result,
               const Hardware& hardware) {
  const Proposal& best = result.proposals.front();
  Options run = with_layout(options, parsed.typed, best.layout);
  run.runtime.world_size.reset();
  run.runtime.hardware.clear();
  const std::string text = concat(kWritten, " for ", *options.runtime.world_size, " ranks on ",
                                  hardware.name, ": ", best.run.prediction.step_time,
                                  " s a step predicted.\n\n", toml_of(run, Command::kPretrain));
  write_file(options.plan.write, text);
  const std::string missing = missing_options(Command::kPretrain, parsed.given);
  log_info(concat("written: ", options.plan.write, missing.empty() ? "" : "; with it " + missing));
}

}  // namespace

int run_plan(const ParsedCommandLine& parsed) {
  if (parsed.options.plan.calibrate) return run_calibration(parsed);
  init_log(/*rank=*/0, /*size=*/1);
  say_notices(parsed);
  Options options = parsed.options;
  if (!options.plan.write.empty()) {
    check_output("write", options.plan.write, "plan",
                 [](std::string_view text) { return text.starts_with(kWritten); });
  }
  RunFindings found;
  find_model(options, found);
  find_vocabulary(options, found);
  if (!found.absent.empty()) log_info(concat("not here: ", found.absent, found.assumed));
  Hardware hardware = planned_hardware(options);
  const LayoutSpace space = layout_space(options, parsed.typed, hardware.gpus_per_node);
  found.facts.world_size = space.world_size;
  if (const std::optional<double> limit = options.plan.memory_limit) {
    MT_CHECK_CONFIG(*limit * kGibi <= hardware.memory, "memory-limit (", *limit,
                    " GiB) must be at most the ", formatted("%.4g", hardware.memory / kGibi),
                    " GiB of ", hardware.name, "; name another machine with --hardware");
    hardware.memory = *limit * kGibi;
  }
  const auto resolve = [&](const Layout& layout) {
    return resolve_layout(with_layout(options, parsed.typed, layout), found.facts);
  };
  const RunSpec model = resolve_layout(with_layout(options, parsed.typed, {}), found.facts,
                                       /*num_micro_batches=*/1);
  const SearchResult result = search_layouts(model, space, hardware, resolve);
  if (result.proposals.empty())
    throw ConfigError(describe_nothing_fits(result, hardware, space.world_size));
  if (options.report.json) {
    std::cout << to_json(result, hardware).dump(2) << "\n";
  } else {
    std::cout << describe(result, hardware) << "\n";
  }
  if (!options.plan.write.empty()) write_run(options, parsed, result, hardware);
  return kExitDone;
}

}  // namespace moetron
