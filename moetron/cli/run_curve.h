// What compare-loss and plot read of a run.
#pragma once

#include <string>

#include "moetron/config/options.h"
#include "moetron/metrics/loss_history.h"

namespace moetron {

// The option `metric` of a run, as means of `smooth` points. Throws InputError naming the run where
// it holds none of the metric, or too few points.
History read_run_curve(const std::string& run, const CurveOptions& options);

}  // namespace moetron
