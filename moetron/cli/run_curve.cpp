#include "moetron/cli/run_curve.h"

#include "moetron/base/error.h"

namespace moetron {

History read_run_curve(const std::string& run, const CurveOptions& options) {
  const History history = read_history(run, options.metric);
  MT_CHECK_INPUT(!history.empty(), run, " holds no ", options.metric);
  History means = smoothed(history, options.smooth);
  MT_CHECK_INPUT(!means.empty(), run, " holds ", history.size(), " points of ", options.metric,
                 ", fewer than smooth (", options.smooth, ")");
  return means;
}

}  // namespace moetron
