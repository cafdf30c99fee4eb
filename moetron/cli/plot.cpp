// moetron plot RUN ...: a number of one or more runs over their steps, or what it settles at, as a
// picture.
#include "moetron/metrics/plot.h"

#include <cstdio>
#include <filesystem>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/path.h"
#include "moetron/cli/commands.h"
#include "moetron/cli/run_curve.h"
#include "moetron/metrics/bar_chart.h"
#include "moetron/run/resolve.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// The option `picture`, else METRIC.png in a run's folder, or in the folder of its log.
fs::path picture_of(const CurveOptions& options, const std::string& metric) {
  if (!options.picture.empty()) return options.picture;
  const fs::path run = options.runs[0];
  return (is_folder(run) ? run : run.parent_path()) / (metric + ".png");
}

// `one`: what a single run is called.
std::string title_of(const CurveOptions& options, const std::string& metric,
                     const std::string& one) {
  const size_t num_runs = options.runs.size();
  return num_runs == 1 ? one : concat(metric, " of ", num_runs, " runs");
}

// The name of a run's folder; "run/" and "run/metrics.jsonl" are run.
std::string folder_name(const std::string& run) {
  fs::path path = fs::absolute(run).lexically_normal();
  if (!path.has_filename() || !is_folder(run)) path = path.parent_path();
  return path.filename().string();
}

bool is_bar_table_file(const std::string& run) {
  return !is_folder(run) && is_bar_table(MappedFile(run).text());
}

// Of a table its rows, else one of each run.
std::vector<ValueBar> read_bars(const CurveOptions& options) {
  if (options.runs.size() == 1 && is_bar_table_file(options.runs[0])) {
    const MappedFile file(options.runs[0]);
    MT_CHECK_CONFIG(options.labels.empty(), "labels: ", options.runs[0], " has labels of its own");
    return read_value_bars(file.text(), file.path(), options.bars);
  }
  std::vector<ValueBar> bars;
  for (size_t i = 0; i < options.runs.size(); ++i) {
    const std::string& run = options.runs[i];
    const History history = read_run(run, options.bars).history;
    MT_CHECK_INPUT(!history.empty(), run, " holds no ", options.bars);
    bars.push_back({options.labels.empty() ? folder_name(run) : options.labels[i], "",
                    settled_median(history, run)});
  }
  return bars;
}

void plot_bars(const CurveOptions& options, const fs::path& picture) {
  draw_bars(read_bars(options), picture,
            title_of(options, options.bars, fs::path(options.runs[0]).filename().string()),
            axis_name(options.bars));
}

void plot_runs(const CurveOptions& options, const fs::path& picture) {
  for (const std::string& run : options.runs)
    MT_CHECK_CONFIG(!is_bar_table_file(run), run,
                    " is a table of bars, not a run: add --bars and the name of a column, such as "
                    "tokens_per_second");
  std::vector<Curve> curves = read_run_curves(options);
  if (curves.size() == 1 && options.metric == "loss") {
    History validation = read_run(options.runs[0], "validation_loss").history;
    if (options.labels.empty()) curves[0].name = "training";
    curves.push_back({"validation", std::move(validation), true});
  }
  plot_curves(curves, picture, title_of(options, options.metric, options.runs[0]),
              axis_name(options.metric), {options.log_x, options.log_y});
}

}  // namespace

int run_plot(const ParsedCommandLine& parsed) {
  say_notices(parsed);
  validate(parsed.options, Command::kPlot, /*world_size=*/1);
  const CurveOptions& options = parsed.options.curves;
  const bool draws_bars = !options.bars.empty();
  const fs::path picture = picture_of(options, draws_bars ? options.bars : options.metric);
  if (draws_bars) {
    plot_bars(options, picture);
  } else {
    plot_runs(options, picture);
  }
  std::printf("wrote %s\n", picture.c_str());
  return kExitDone;
}

}  // namespace moetron
