#include "moetron/metrics/plot.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "moetron/base/error.h"
#include "moetron/base/log.h"
#include "moetron/metrics/gnuplot.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// Colours of curves, strong and pale, that stay apart for the colour-blind.
constexpr int kColours[][2] = {{0x1f5f9f, 0xa9c9e8}, {0xd9541e, 0xf5c6ae}, {0x15806a, 0xa6dacb},
                               {0x6f4fa0, 0xcfc2e6}, {0xb07d00, 0xecd79b}, {0x505050, 0xc8c8c8}};

std::string colour(size_t curve, bool is_pale) {
  return gnuplot_colour(kColours[curve % std::size(kColours)][is_pale]);
}

// Mean over a centred window of about a fiftieth of the run: narrower at the start, where the loss
// falls steeply, and cut off at the end.
std::vector<double> running_mean(const History& points) {
  const size_t half = points.size() / 100 + 1;
  std::vector<double> sums(points.size() + 1, 0.0);
  for (size_t i = 0; i < points.size(); ++i) sums[i + 1] = sums[i] + points[i].value;
  std::vector<double> means(points.size());
  for (size_t i = 0; i < points.size(); ++i) {
    const size_t before = std::min(half, i);
    const size_t after = std::min(before, points.size() - 1 - i);
    means[i] = (sums[i + after + 1] - sums[i - before]) / static_cast<double>(before + after + 1);
  }
  return means;
}

History finite(const History& points) {
  History result;
  std::copy_if(points.begin(), points.end(), std::back_inserter(result),
               [](const HistoryPoint& point) { return std::isfinite(point.value); });
  return result;
}

// Lines "step value mean".
std::string data_text(const History& points) {
  const std::vector<double> means = running_mean(points);
  std::string text;
  char line[96];
  for (size_t i = 0; i < points.size(); ++i) {
    std::snprintf(line, sizeof(line), "%lld %.9g %.9g\n", static_cast<long long>(points[i].step),
                  points[i].value, means[i]);
    text += line;
  }
  return text;
}

// What the axes span.
struct Extent {
  int64_t first_step = std::numeric_limits<int64_t>::max();
  int64_t last_step = std::numeric_limits<int64_t>::min();
  double lowest = std::numeric_limits<double>::infinity();
  double highest = -std::numeric_limits<double>::infinity();

  void include(const History& points) {
    for (const HistoryPoint& point : points) {
      first_step = std::min(first_step, point.step);
      last_step = std::max(last_step, point.step);
      lowest = std::min(lowest, point.value);
      highest = std::max(highest, point.value);
    }
  }
};

std::string steps_text(const Extent& extent, bool is_logarithmic) {
  if (is_logarithmic)
    return concat("set logscale x\nset xrange [", extent.first_step, ":",
                  std::max(extent.last_step, extent.first_step + 1), "]\nset format x '%.0f'\n");
  const int64_t first = extent.first_step - (extent.first_step == 1 ? 1 : 0);
  const int64_t last = std::max(extent.last_step, extent.first_step + 1);
  // Between few steps gnuplot's own ticks would stand at fractions.
  return concat("set xrange [", first, ":", last, "]\nset format x '%.0f'\nset xtics ",
                last - first <= 10 ? "1" : "autofreq", "\n");
}

enum class ValueScale { kLinear, kLogarithmic, kAsTheRunFalls };

// A run falls steeply and then for long by little: on a logarithmic axis both are seen.
std::string values_text(const Extent& extent, const std::string& axis, ValueScale scale) {
  const bool falls = extent.lowest > 0.0 && extent.highest > 2.0 * extent.lowest;
  const bool is_logarithmic =
      scale == ValueScale::kLogarithmic || (scale == ValueScale::kAsTheRunFalls && falls);
  const double span = extent.highest - extent.lowest;
  const double margin = span > 0 ? 0.05 * span : 0.05 * std::max(std::abs(extent.highest), 0.1);
  const double low = is_logarithmic ? extent.lowest * 0.96 : extent.lowest - margin;
  const double high = is_logarithmic ? extent.highest * 1.04 : extent.highest + margin;
  char range[96];
  std::snprintf(range, sizeof(range), "set yrange [%.9g:%.9g]\n", low, high);
  std::string text = range;
  if (!is_logarithmic)
    return text + "unset logscale\nset ytics autofreq\nset ylabel " + gnuplot_quoted(axis) + "\n";
  text += "set logscale y\nset ylabel " + gnuplot_quoted(axis + ", logarithmic") + "\n";
  // Within a few powers of ten gnuplot's own ticks are too few.
  if (extent.highest < 1000 * extent.lowest && extent.highest < 1000 && extent.lowest > 0.001)
    text +=
        "set ytics (0.001,0.002,0.005,0.01,0.02,0.05,0.1,0.2,0.3,0.5,0.7,1,1.5,2,2.5,3,4,5,6,8,10,"
        "12,15,20,30,50,100,200,500,1000)\n";
  return text;
}

constexpr const char* kStyle =
    "set border 3 linecolor rgb '#606060'\nset tics nomirror out textcolor rgb '#303030'\n"
    "set grid linecolor rgb '#e0e0e0' linetype 1 linewidth 0.5\n"
    "set key above right horizontal Left reverse samplen 2\nset rmargin 4\n";  // hides no curve

// Dotted lines where a run went on. Words beside each would cover many.
std::string resumes_text(const std::vector<Curve>& curves) {
  constexpr size_t kMostWords = 8;
  size_t count = 0;
  for (const Curve& curve : curves) count += curve.resumes.size();
  std::string text;
  for (size_t i = 0; i < curves.size(); ++i) {
    for (const Resume& resume : curves[i].resumes) {
      text += concat("set arrow from first ", resume.step, ", graph 0 to first ", resume.step,
                     ", graph 1 nohead linecolor rgb ", colour(i, false), " dashtype '. '\n");
      if (count > kMostWords) continue;
      std::string words = "resumed";
      if (resume.repeats > 0)
        words += concat(", ", resume.repeats, resume.repeats == 1 ? " step again" : " steps again");
      text += concat("set label ", gnuplot_quoted(words), " at first ", resume.step,
                     ", graph 0.98 right rotate by 90 offset -1,0 textcolor rgb ", colour(i, false),
                     "\n");
    }
  }
  return text;
}

// The arguments of `plot` for curves whose data are the files 0, 1, ...
std::string plot_text(const std::vector<Curve>& curves) {
  std::string text = "plot ";
  const bool is_single = std::count_if(curves.begin(), curves.end(),
                                       [](const Curve& curve) { return !curve.is_sparse; }) == 1;
  // One that lies on the other lets it be seen.
  const bool are_two = curves.size() == 2 && !is_single;
  for (size_t i = 0; i < curves.size(); ++i) {
    if (i > 0) text += ", \\\n  ";
    const std::string name = gnuplot_quoted(curves[i].name);
    if (curves[i].is_sparse) {
      text += concat("'", i, "' using 1:2 with linespoints linecolor rgb ", colour(i, false),
                     " linewidth 2 pointtype 7 pointsize 0.9 title ", name);
      continue;
    }
    text += concat("'", i, "' using 1:2 with lines linecolor rgb ", colour(i, true),
                   " linewidth 1 ", is_single ? "title " + name : "notitle", ", '' using 1:3 with ",
                   "lines linecolor rgb ", colour(i, false), " linewidth 2 ",
                   are_two && i == 1 ? "dashtype '- '" : "", " title ",
                   is_single ? "'running mean'" : name);
  }
  return text + "\n";
}

// The curves that have something to show, their data files 0, 1, ... and what they span.
struct Drawing {
  std::vector<Curve> curves;
  std::vector<PlotData> data;
  Extent extent;
};

// What the axes have a place for.
History placed(const Curve& curve, const LogAxes& axes) {
  History points = finite(curve.points);
  const size_t num_finite = points.size();
  std::erase_if(points, [&](const HistoryPoint& point) {
    return (axes.x && point.step <= 0) || (axes.y && point.value <= 0);
  });
  if (points.size() < num_finite)
    log_warning(concat(curve.name, ": ", num_finite - points.size(), " of ", num_finite,
                       " points are not above 0, and a logarithmic axis has no place for them"));
  return points;
}

Drawing drawing_of(const std::vector<Curve>& curves, const fs::path& path, const std::string& axis,
                   const LogAxes& axes) {
  Drawing drawing;
  for (const Curve& curve : curves) {
    Curve drawn = curve;
    drawn.points = placed(curve, axes);
    if (drawn.points.empty()) continue;
    std::erase_if(drawn.resumes, [&](const Resume& resume) {
      return resume.step < drawn.points.front().step || resume.step > drawn.points.back().step;
    });
    drawing.extent.include(drawn.points);
    drawing.data.push_back({concat(drawing.curves.size()), data_text(drawn.points)});
    drawing.curves.push_back(std::move(drawn));
  }
  MT_CHECK_CONFIG(!drawing.curves.empty(), "cannot draw ", path.string(), ": ", axis,
                  axes.x || axes.y ? " has no finite value that the logarithmic axes can show"
                                   : " has no finite value");
  return drawing;
}

}  // namespace

void plot_curves(const std::vector<Curve>& curves, const fs::path& path, const std::string& title,
                 const std::string& axis, const LogAxes& axes) {
  check_picture_name(path);
  const Drawing drawing = drawing_of(curves, path, axis, axes);
  const ValueScale scale = axes.y ? ValueScale::kLogarithmic : ValueScale::kAsTheRunFalls;
  draw_with_gnuplot(
      path, {1000, 560},
      concat("set title ", gnuplot_quoted(title), "\nset xlabel 'step",
             axes.x ? ", logarithmic'\n" : "'\n", kStyle, steps_text(drawing.extent, axes.x),
             values_text(drawing.extent, axis, scale), resumes_text(drawing.curves),
             plot_text(drawing.curves)),
      drawing.data);
}

void plot_comparison(const Curve& first, const Curve& second, const History& difference,
                     const std::string& summary, const fs::path& path, const std::string& title,
                     const std::string& axis) {
  check_picture_name(path);
  Drawing drawing = drawing_of({first, second}, path, axis, {});
  const History points = finite(difference);
  MT_CHECK_CONFIG(!points.empty(), "cannot draw ", path.string(),
                  ": the runs have no step in common where both are finite");
  drawing.data.push_back({"difference", data_text(points)});
  Extent extent;
  extent.include(points);
  extent.include({{points[0].step, 0}});
  // Two charts over the same steps, with the same left and right edges.
  const std::string script = concat(
      "set multiplot\n", kStyle, steps_text(drawing.extent, false),
      "set lmargin at screen 0.1\nset rmargin at screen 0.97\nset tmargin at screen 0.93\n"
      "set bmargin at screen 0.4\nset format x ''\nset title ",
      gnuplot_quoted(title), "\n", values_text(drawing.extent, axis, ValueScale::kAsTheRunFalls),
      resumes_text(drawing.curves), plot_text(drawing.curves),
      "unset title\nunset arrow\nunset label\nset key inside top right\nset tmargin at screen "
      "0.36\nset bmargin at screen 0.1\n"
      "set format x '%.0f'\nset xlabel 'step'\n",
      values_text(extent, "second - first", ValueScale::kLinear),
      "plot 0 with lines linecolor rgb '#606060' linewidth 0.7 notitle, \\\n"
      "  'difference' using 1:2 with lines linecolor rgb ",
      colour(3, true), " linewidth 1 notitle, '' using 1:3 with lines linecolor rgb ",
      colour(3, false), " linewidth 2 title ", gnuplot_quoted("its mean; " + summary),
      "\nunset multiplot\n");
  draw_with_gnuplot(path, {1000, 700}, script, drawing.data);
}

void plot_losses(const std::vector<StepRecord>& records, const fs::path& path,
                 const std::string& title) {
  Curve training{"training", {}};
  Curve validation{"validation", {}, true};
  for (const StepRecord& record : records) {
    training.points.push_back({record.step, record.loss});
    if (record.resume_repeats) training.resumes.push_back({record.step, *record.resume_repeats});
    if (record.validation_loss) validation.points.push_back({record.step, *record.validation_loss});
  }
  plot_curves({training, validation}, path, title, axis_name("loss"));
}

}  // namespace moetron
