// Pictures of a run, drawn by gnuplot.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "moetron/metrics/step_record.h"

namespace moetron {

// Draws training loss (every step pale, a running mean strong) and validation loss over steps.
// The name's end, .png or .svg, decides the kind of picture. Throws ConfigError if it is another,
// if there is nothing to draw, or if gnuplot is missing or fails.
void plot_losses(const std::vector<StepRecord>& records, const std::filesystem::path& path,
                 const std::string& title);

}  // namespace moetron
