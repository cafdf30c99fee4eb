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
};

// The name's end, .png or .svg, decides the kind of picture. Throws ConfigError if it is another,
// if no curve has a finite value, or if gnuplot is missing or fails.
void plot_curves(const std::vector<Curve>& curves, const std::filesystem::path& path,
                 const std::string& title, const std::string& axis);

// Training and validation loss of one run.
void plot_losses(const std::vector<StepRecord>& records, const std::filesystem::path& path,
                 const std::string& title);

// Two runs, and below them their difference.
void plot_comparison(const Curve& first, const Curve& second, const History& difference,
                     const std::filesystem::path& path, const std::string& title,
                     const std::string& axis);

}  // namespace moetron
