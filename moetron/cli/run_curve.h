// What compare-loss and plot read of runs.
#pragma once

#include <string>
#include <vector>

#include "moetron/config/options.h"
#include "moetron/metrics/plot.h"

namespace moetron {

// The option `metric` of each run, as means of `smooth` points, under its label. Throws InputError
// naming the run where it holds none of the metric, or too few points.
std::vector<Curve> read_run_curves(const CurveOptions& options);

}  // namespace moetron
