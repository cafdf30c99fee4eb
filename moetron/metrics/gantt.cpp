#include "moetron/metrics/gantt.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/metrics/gnuplot.h"

namespace moetron {
namespace {

// In pixels of a screen.
constexpr double kLeft = 74;
constexpr double kRight = 26;
constexpr double kTop = 46;
constexpr double kLegendRow = 22;
constexpr double kBottom = 76;        // ticks and the name of the axis
constexpr double kLabelText = 10.5;   // of a bar's label, as much as 0.75 of other text
constexpr double kDigitWidth = 0.66;  // of the text's height
constexpr double kTextWidth = 7.6;    // of a letter of other text
constexpr double kSwatch = 18;
constexpr double kLeastWidth = 900;
constexpr double kMostWidth = 2000;

const char* long_name(BarKind kind) {
  switch (kind) {
    case BarKind::kForward:
      return "F: forward";
    case BarKind::kBackwardInput:
      return "I: input gradients";
    case BarKind::kBackwardWeight:
      return "W: weight gradients";
    case BarKind::kBackward:
      return "B: backward, I and W";
    case BarKind::kReduce:
      return "R: reduce gradients";
    case BarKind::kCommunication:
      return "communication";
    case BarKind::kWait:
      return "wait";
  }
  throw InternalError("a bar without a kind");
}

// Seconds are shown in what makes the whole a readable number.
struct Scale {
  double factor = 1;
  std::string unit;
};

Scale scale_of(const std::string& unit, double span) {
  if (unit != "s" || span >= 10) return {1, unit};
  return span >= 0.01 ? Scale{1e3, "ms"} : Scale{1e6, "us"};
}

// Where everything lies. Ranks are the y coordinate: row r reaches from r - 0.5 to r + 0.5.
struct Layout {
  double begin = 0;  // of all bars
  double end = 0;
  int num_ranks = 0;
  std::vector<std::string> row_names;
  bool has_communication = false;
  std::map<BarKind, std::set<int>> chunks;  // of each kind of bar: even ones (0), odd ones (1)
  int num_chunks = 0;
  Scale scale;
  double plot_width = 0;
  double row_height = 0;
  double bottom = 0;

  PictureSize size() const {
    return {static_cast<int>(kLeft + plot_width + kRight),
            static_cast<int>(kTop + row_height * num_ranks + bottom)};
  }
  double pixels(double duration) const { return duration / (end - begin) * plot_width; }
  double shown(double time) const { return (time - begin) * scale.factor; }
};

double legend_width(const std::string& name, size_t num_chunks) {
  return kSwatch * static_cast<double>(num_chunks) + 8 + kTextWidth * double(name.size()) + 24;
}

// Wide enough that most labels fit.
double plot_width(const Layout& layout, const Timeline& timeline) {
  std::vector<double> durations;
  for (const Bar& bar : timeline.bars)
    if (!bar.label.empty() && bar.end > bar.begin) durations.push_back(bar.end - bar.begin);
  if (durations.empty()) return kLeastWidth;
  const auto quartile = durations.begin() + static_cast<std::ptrdiff_t>(durations.size() / 4);
  std::nth_element(durations.begin(), quartile, durations.end());
  return std::clamp(18 * (layout.end - layout.begin) / *quartile, kLeastWidth, kMostWidth);
}

Layout layout_of(const Timeline& timeline) {
  Layout layout;
  layout.begin = timeline.bars.front().begin;
  layout.end = layout.begin;
  for (const Bar& bar : timeline.bars) {
    MT_CHECK(bar.rank >= 0 && bar.end >= bar.begin, "rank ", bar.rank, " from ", bar.begin, " to ",
             bar.end);
    layout.begin = std::min(layout.begin, bar.begin);
    layout.end = std::max(layout.end, bar.end);
    layout.num_ranks = std::max(layout.num_ranks, bar.rank + 1);
    layout.has_communication |= bar.track == 1;
    layout.chunks[bar.kind].insert(has_chunks(bar.kind) ? bar.chunk % 2 : 0);
    layout.num_chunks = std::max(layout.num_chunks, bar.chunk + 1);
  }
  if (!(layout.end > layout.begin)) layout.end = layout.begin + 1;
  layout.row_names = timeline.row_names;
  layout.scale = scale_of(timeline.unit, layout.end - layout.begin);
  layout.plot_width = plot_width(layout, timeline);
  layout.row_height =
      std::clamp(1100.0 / layout.num_ranks, 4.0, layout.has_communication ? 50.0 : 36.0);
  return layout;
}

struct Rows {
  double top;
  double bottom;
};

Rows rows_of(const Layout& layout, const Bar& bar) {
  Rows rows{bar.rank - 0.43, bar.rank + 0.43};
  if (layout.has_communication) (bar.track == 1 ? rows.top : rows.bottom) = bar.rank + 0.17;
  const double middle = (rows.top + rows.bottom) / 2;
  if (bar.place == BarPlace::kUpperHalf) rows.bottom = middle;
  if (bar.place == BarPlace::kLowerHalf) rows.top = middle;
  return rows;
}

// Rows of swatches below the chart: of each kind one for each chunk. Sets the room below the chart.
std::string legend_text(Layout& layout) {
  struct Entry {
    std::string name;
    std::vector<int> colours;
    double left;
    int row;
  };
  std::vector<Entry> entries;
  double left = kLeft;
  int row = 0;
  bool has_second_chunk = false;
  const auto add = [&](const std::string& name, std::vector<int> colours) {
    const double width = legend_width(name, colours.size());
    if (left > kLeft && left + width > kLeft + layout.plot_width + kRight) {
      left = kLeft;
      ++row;
    }
    entries.push_back({name, std::move(colours), left, row});
    left += width;
  };
  for (const auto& [kind, chunks] : layout.chunks) {
    std::vector<int> colours;
    for (const int chunk : chunks) colours.push_back(colour_of(kind, chunk));
    has_second_chunk |= chunks.count(1) > 0;
    add(long_name(kind), colours);
  }
  if (has_second_chunk) {
    add(layout.num_chunks == 2 ? "dark: chunk 0, light: chunk 1"
                               : "dark: chunks 0, 2, ..., light: chunks 1, 3, ...",
        {});
  }
  layout.bottom = kBottom + kLegendRow * (row + 1);

  const PictureSize size = layout.size();
  std::string text;
  for (const Entry& entry : entries) {
    double x = entry.left;
    const double y = kLegendRow * (row - entry.row + 0.8);
    for (const int colour : entry.colours) {
      text +=
          concat("set object rectangle from screen ", x / size.width, ",", (y - 7) / size.height,
                 " to screen ", (x + kSwatch - 2) / size.width, ",", (y + 7) / size.height,
                 " fillcolor rgb ", gnuplot_colour(colour), " fillstyle solid 1 noborder\n");
      x += kSwatch;
    }
    text += concat("set label ", gnuplot_quoted(entry.name), " at screen ", (x + 6) / size.width,
                   ",", y / size.height, " left\n");
  }
  return text;
}

// Names at the rows, fewer where there is no room for all.
std::string row_names_text(const Layout& layout) {
  const int every = std::max(1, static_cast<int>(16 / layout.row_height));
  if (layout.row_names.empty())
    return concat("set ytics 0,", every, " scale 0\nset format y 'rank %.0f'\n");
  std::string text = "set ytics (";
  for (size_t row = 0; row < layout.row_names.size(); row += static_cast<size_t>(every))
    text += concat(row == 0 ? "" : ", ", gnuplot_quoted(layout.row_names[row]), " ", row);
  return text + ") scale 0\n";
}

std::string script_text(const Layout& layout, const std::string& title) {
  const PictureSize size = layout.size();
  const double width = size.width;
  const double height = size.height;
  char range[48];
  std::snprintf(range, sizeof(range), "set xrange [0:%.9g]\n", layout.shown(layout.end));
  return concat(
      "set title ", gnuplot_quoted(title), "\nset lmargin at screen ", kLeft / width,
      "\nset rmargin at screen ", (kLeft + layout.plot_width) / width, "\nset tmargin at screen ",
      1 - kTop / height, "\nset bmargin at screen ", layout.bottom / height, "\n", range,
      "set yrange [", layout.num_ranks - 0.5, ":-0.5]\nset xlabel ",
      gnuplot_quoted(concat("time (", layout.scale.unit, ")")), "\n", row_names_text(layout),
      "unset key\nset format x '%.7g'\n"
      "set border 1 linecolor rgb '#606060'\nset xtics nomirror out textcolor rgb '#303030'\n"
      "set ytics nomirror textcolor rgb '#303030'\nset style fill solid 1 noborder\n"
      "plot 'bars' using 1:2:3:4:5:6:7 with boxxyerror linecolor rgb variable, \\\n"
      "  'labels' using 1:2:3:4 with labels textcolor rgb variable font sprintf(',%g', ",
      kLabelText / 14, " * text)\n");
}

// White on what is dark, by the weights of ITU-R BT.709.
int label_colour(int colour) {
  const double light =
      0.2126 * (colour >> 16) + 0.7152 * (colour >> 8 & 255) + 0.0722 * (colour & 255);
  return light < 140 ? 0xffffff : 0x202020;
}

void append_bar(const Layout& layout, const Bar& bar, std::string& bars, std::string& labels) {
  const Rows rows = rows_of(layout, bar);
  const double begin = layout.shown(bar.begin);
  const double width = layout.pixels(bar.end - bar.begin);
  // A gap of a pixel, where there is room, keeps equal neighbours apart.
  const double gap = width > 4 ? 1 / width : 0;
  const double end = begin + (layout.shown(bar.end) - begin) * (1 - gap);
  const int colour = colour_of(bar.kind, bar.chunk);
  char line[160];
  std::snprintf(line, sizeof(line), "%.9g %.9g %.9g %.9g %.6g %.6g %d\n", begin, rows.top, begin,
                end, rows.top, rows.bottom, colour);
  bars += line;
  const double text_width = kDigitWidth * kLabelText * static_cast<double>(bar.label.size());
  const double text_height = (rows.bottom - rows.top) * layout.row_height;
  if (bar.label.empty() || text_width > width - 2 || text_height < kLabelText) return;
  std::snprintf(line, sizeof(line), "%.9g %.6g ", (begin + end) / 2, (rows.top + rows.bottom) / 2);
  labels += concat(line, '"', bar.label, "\" ", label_colour(colour), "\n");
}

}  // namespace

void draw_gantt(const Timeline& timeline, const std::filesystem::path& path,
                const std::string& title) {
  check_picture_name(path);
  MT_CHECK_CONFIG(!timeline.bars.empty(), "cannot draw ", path.string(), ": nothing happens in it");
  Layout layout = layout_of(timeline);
  const std::string legend = legend_text(layout);
  std::string bars;
  std::string labels;
  for (const Bar& bar : timeline.bars) append_bar(layout, bar, bars, labels);
  if (labels.empty()) labels = "0 0 \"\" 0\n";  // gnuplot refuses an empty file
  draw_with_gnuplot(path, layout.size(), legend + script_text(layout, title),
                    {{"bars", std::move(bars)}, {"labels", std::move(labels)}});
}

}  // namespace moetron
