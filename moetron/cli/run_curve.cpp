#include "moetron/cli/run_curve.h"

#include "moetron/base/error.h"

namespace moetron {

std::vector<Curve> read_run_curves(const CurveOptions& options) {
  std::vector<Curve> curves;
  for (size_t i = 0; i < options.runs.size(); ++i) {
    const std::string& run = options.runs[i];
    LoggedRun logged = read_run(run, options.metric);
    MT_CHECK_INPUT(!logged.history.empty(), run, " holds no ", options.metric);
    Curve curve{options.labels.empty() ? run : options.labels[i],
                smoothed(logged.history, options.smooth)};
    MT_CHECK_INPUT(!curve.points.empty(), run, " holds ", logged.history.size(), " points of ",
                   options.metric, ", fewer than smooth (", options.smooth, ")");
    curve.resumes = std::move(logged.resumes);
    curves.push_back(std::move(curve));
  }
  return curves;
}

}  // namespace moetron
