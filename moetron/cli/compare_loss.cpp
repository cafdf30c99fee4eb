// moetron compare-loss A B: how far the curves of two runs are apart.
#include "moetron/metrics/compare_loss.h"

#include <cstdio>

#include "moetron/base/error.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/run_curve.h"
#include "moetron/metrics/plot.h"
#include "moetron/run/resolve.h"

namespace moetron {

int run_compare_loss(const ParsedCommandLine& parsed) {
  const CurveOptions& options = parsed.options.curves;
  validate(parsed.options, Command::kCompareLoss, /*world_size=*/1);
  check_metric(options.metric);
  const std::vector<Curve> curves = read_run_curves(options);
  const History& first = curves[0].points;
  const History& second = curves[1].points;
  const LossComparison comparison = compare_histories(first, second, options.tolerance);
  const std::string &first_name = curves[0].name, &second_name = curves[1].name;
  MT_CHECK_INPUT(comparison.num_steps > 0, first_name, " (steps ", first.front().step, " to ",
                 first.back().step, ") and ", second_name, " (steps ", second.front().step, " to ",
                 second.back().step, ") have no step in common");
  const ReceiptComparison receipts = compare_receipts(options.runs[0], options.runs[1]);
  if (parsed.options.report.json) {
    std::printf("%s\n", to_json_text(comparison, options.metric, receipts).c_str());
  } else {
    std::fputs(describe(comparison, options.metric).c_str(), stdout);
    std::fputs(describe(receipts, first_name, second_name).c_str(), stdout);
  }
  if (!options.picture.empty()) {
    plot_comparison(curves[0], curves[1], difference_of(first, second),
                    relative_summary(comparison), options.picture, options.metric + " of two runs",
                    axis_name(options.metric));
  }
  const bool other_bits = options.tolerance == 0 && receipts.difference;
  return comparison.first_past_tolerance || other_bits ? kExitDiffers : kExitDone;
}

}  // namespace moetron
