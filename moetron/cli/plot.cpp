// moetron plot RUN ...: a number of one or more runs over their steps, as a picture.
#include "moetron/metrics/plot.h"

#include <cstdio>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/run_curve.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// In a run's folder, or in the folder of its log.
fs::path picture_beside(const CurveOptions& options) {
  const fs::path run = options.runs[0];
  return (is_folder(run) ? run : run.parent_path()) / (options.metric + ".png");
}

}  // namespace

int run_plot(const ParsedCommandLine& parsed) {
  const CurveOptions& options = parsed.options.curves;
  validate(parsed.options, Command::kPlot, /*world_size=*/1);
  std::vector<Curve> curves;
  for (const std::string& run : options.runs) {
    curves.push_back({run, read_run_curve(run, options)});
  }
  if (curves.size() == 1 && options.metric == "loss") {
    History validation = read_history(options.runs[0], "validation_loss");
    curves[0].name = "training";
    curves.push_back({"validation", std::move(validation), true});
  }
  const std::string title = options.runs.size() == 1
                                ? options.runs[0]
                                : concat(options.metric, " of ", options.runs.size(), " runs");
  const fs::path picture =
      options.picture.empty() ? picture_beside(options) : fs::path(options.picture);
  plot_curves(curves, picture, title, axis_name(options.metric));
  std::printf("wrote %s\n", picture.c_str());
  return kExitDone;
}

}  // namespace moetron
