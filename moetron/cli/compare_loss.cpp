// moetron compare-loss A B: how far the curves of two runs are apart.
#include "moetron/metrics/compare_loss.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/metrics/plot.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

constexpr int kExitDiffers = 1;  // as of cmp and diff

History checked_history(const std::string& run, const CurveOptions& options) {
  const History history = read_history(run, options.metric);
  MT_CHECK_INPUT(!history.empty(), run, " holds no ", options.metric);
  History means = smoothed(history, options.smooth);
  MT_CHECK_INPUT(!means.empty(), run, " holds ", history.size(), " points of ", options.metric,
                 ", fewer than smooth (", options.smooth, ")");
  return means;
}

}  // namespace

int run_compare_loss(const ParsedCommandLine& parsed) {
  const CurveOptions& options = parsed.options.curves;
  validate(parsed.options, Command::kCompareLoss, /*world_size=*/1);
  check_metric(options.metric);
  const std::string& first_run = options.runs[0];
  const std::string& second_run = options.runs[1];
  const History first = checked_history(first_run, options);
  const History second = checked_history(second_run, options);
  const LossComparison comparison = compare_histories(first, second, options.tolerance);
  MT_CHECK_INPUT(comparison.num_steps > 0, first_run, " (steps ", first.front().step, " to ",
                 first.back().step, ") and ", second_run, " (steps ", second.front().step, " to ",
                 second.back().step, ") have no step in common");
  if (parsed.options.report.json) {
    std::printf("%s\n", to_json_text(comparison, options.metric).c_str());
  } else {
    std::fputs(describe(comparison, options.metric).c_str(), stdout);
  }
  if (!options.picture.empty()) {
    plot_comparison({first_run, first}, {second_run, second}, difference_of(first, second),
                    options.picture, options.metric + " of two runs", axis_name(options.metric));
  }
  return comparison.first_past_tolerance ? kExitDiffers : kExitDone;
}

}  // namespace moetron
