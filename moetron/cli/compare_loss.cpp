// moetron compare-loss A B: how far the curves of two runs are apart.
#include "moetron/metrics/compare_loss.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/run_curve.h"
#include "moetron/metrics/plot.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

constexpr int kExitDiffers = 1;  // as of cmp and diff

}  // namespace

int run_compare_loss(const ParsedCommandLine& parsed) {
  const CurveOptions& options = parsed.options.curves;
  validate(parsed.options, Command::kCompareLoss, /*world_size=*/1);
  check_metric(options.metric);
  const std::string& first_run = options.runs[0];
  const std::string& second_run = options.runs[1];
  const History first = read_run_curve(first_run, options);
  const History second = read_run_curve(second_run, options);
  const LossComparison comparison = compare_histories(first, second, options.tolerance);
  MT_CHECK_INPUT(comparison.num_steps > 0, first_run, " (steps ", first.front().step, " to ",
                 first.back().step, ") and ", second_run, " (steps ", second.front().step, " to ",
                 second.back().step, ") have no step in common");
  const ReceiptComparison receipts = compare_receipts(first_run, second_run);
  if (parsed.options.report.json) {
    std::printf("%s\n", to_json_text(comparison, options.metric, receipts).c_str());
  } else {
    std::fputs(describe(comparison, options.metric).c_str(), stdout);
    std::fputs(describe(receipts, first_run, second_run).c_str(), stdout);
  }
  if (!options.picture.empty()) {
    plot_comparison({first_run, first}, {second_run, second}, difference_of(first, second),
                    options.picture, options.metric + " of two runs", axis_name(options.metric));
  }
  const bool other_bits = options.tolerance == 0 && receipts.difference;
  return comparison.first_past_tolerance || other_bits ? kExitDiffers : kExitDone;
}

}  // namespace moetron
