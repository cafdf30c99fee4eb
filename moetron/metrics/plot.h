// Pictures of runs: numbers over steps, drawn by gnuplot.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moetron/metrics/loss_history.h"
#include "moetron/metrics/step_record.h"

namespace moetron {

struct Curve {
  std::string name;
  History points;
  // Of few points, each of which is marked. Other curves are drawn pale, with a running mean.
  bool is_sparse = false;
  std::vector<Resume> resumes = {};  // each a dotted line, in the colour of the curve
};

// Which axes are logarithmic. Points that such an axis has no place for are left out, and a warning
// counts them for each curve.
struct LogAxes {
  bool x = false;
  bool y = false;
};

// The name's end, .png or .svg, decides the kind of picture. Throws ConfigError if it is another,
// if no curve has a finite value that the axes have a place for, or if gnuplot is missing or fails.
// Values that are all above 0 and fall steeply, too, are drawn on a logarithmic axis.
void plot_curves(const std::vector<Curve>& curves, const std::filesystem::path& path,
                 const std::string& title, const std::string& axis, const LogAxes& axes = {});

// Training and validation loss of one run.
void plot_losses(const std::vector<StepRecord>& records, const std::filesystem::path& path,
                 const std::string& title);

// Two runs, and below them their difference, with a summary of it in words.
void plot_comparison(const Curve& first, const Curve& second, const History& difference,
                     const std::string& summary, const std::filesystem::path& path,
                     const std::string& title, const std::string& axis);

}  // namespace moetron
