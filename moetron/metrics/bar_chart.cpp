#include "moetron/metrics/bar_chart.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/metrics/curve_tables.h"
#include "moetron/metrics/gnuplot.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSlowSteps = 3;  // the first: memory is taken, kernels are chosen
constexpr double kBarWidth = 0.8;
constexpr double kGap = 0.8;  // between groups
constexpr int kColours[] = {0x8c8c8c, 0x1f5f9f, 0xd9541e, 0x15806a, 0x6f4fa0, 0xb07d00};

std::optional<size_t> column(const std::vector<std::string>& header, std::string_view name) {
  const auto found = std::find(header.begin(), header.end(), name);
  if (found == header.end()) return std::nullopt;
  return static_cast<size_t>(found - header.begin());
}

// Adds the text where it is new; returns where it stands.
size_t place_of(const std::string& text, std::vector<std::string>& texts) {
  const auto found = std::find(texts.begin(), texts.end(), text);
  const auto place = static_cast<size_t>(found - texts.begin());
  if (found == texts.end()) texts.push_back(text);
  return place;
}

std::string short_number(double value) {
  return formatted(value >= 1000 ? "%.0f" : "%.4g", value);
}

// Where everything stands on the x axis, a bar being kBarWidth of 1 wide.
struct Places {
  std::vector<std::string> labels, groups;
  std::vector<std::vector<size_t>> bars;  // by group, their numbers
  std::vector<double> centres;            // by bar
  double width = 0;
};

Places places_of(const std::vector<ValueBar>& bars) {
  Places places;
  for (size_t i = 0; i < bars.size(); ++i) {
    place_of(bars[i].label, places.labels);
    const size_t group = place_of(bars[i].group, places.groups);
    places.bars.resize(places.groups.size());
    places.bars[group].push_back(i);
  }
  places.centres.resize(bars.size());
  places.width = kGap;
  for (const auto& of_group : places.bars) {
    for (const size_t bar : of_group) {
      places.centres[bar] = places.width + 0.5;
      places.width += 1;
    }
    places.width += kGap;
  }
  return places;
}

// By how much a bar is above (or below) the first of its group; empty for the first itself.
std::string gain_over(const ValueBar& first, const ValueBar& bar) {
  if (&first == &bar || first.value <= 0) return "";
  return formatted("%+.0f %%", 100 * (bar.value / first.value - 1));
}

std::string labels_text(const std::vector<ValueBar>& bars, const Places& places) {
  std::string text;
  for (size_t group = 0; group < places.groups.size(); ++group) {
    const std::vector<size_t>& of_group = places.bars[group];
    for (const size_t bar : of_group) {
      const std::string gain = gain_over(bars[of_group[0]], bars[bar]);
      text +=
          formatted("set label '%s' at %.9g,%.9g center offset 0,0.6\n",
                    short_number(bars[bar].value).c_str(), places.centres[bar], bars[bar].value);
      if (!gain.empty())
        text += formatted(
            "set label '%s' at %.9g,%.9g center offset 0,1.6 font sprintf(',%%g', 0.85 * text)\n",
            gain.c_str(), places.centres[bar], bars[bar].value);
    }
    const double middle = (places.centres[of_group.front()] + places.centres[of_group.back()]) / 2;
    text += concat("set label ", gnuplot_quoted(places.groups[group]), " at ", middle,
                   ",0 center offset 0,-1\n");
  }
  return text;
}

}  // namespace

double settled_median(const History& history, const std::string& run) {
  std::vector<double> values;
  for (size_t i = std::min(kSlowSteps, history.size() / 2); i < history.size(); ++i)
    if (std::isfinite(history[i].value)) values.push_back(history[i].value);
  MT_CHECK_INPUT(!values.empty(), run, " has no finite value to draw");
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

bool is_bar_table(std::string_view text) {
  const std::vector<std::string> header = table_fields(take_line(text));
  return column(header, "label") && column(header, "group");
}

std::vector<ValueBar> read_value_bars(std::string_view text, const fs::path& path,
                                      const std::string& metric) {
  const std::vector<std::string> header = table_fields(take_line(text));
  const auto label = column(header, "label"), group = column(header, "group");
  const auto named = column(header, metric);
  const auto value = named ? named : column(header, "value");
  MT_CHECK_INPUT(label && group, path.string(), ":1: the columns label and group are expected");
  MT_CHECK_INPUT(value, path.string(), ":1: no column is called ", metric, " or value");
  std::vector<ValueBar> bars;
  for (int64_t number = 2; !text.empty(); ++number) {
    const std::vector<std::string> fields = table_fields(take_line(text));
    if (fields.empty() || (fields.size() == 1 && fields[0].empty())) continue;
    const std::string place = concat(path.string(), ":", number, ": ");
    MT_CHECK_INPUT(fields.size() == header.size(), place, fields.size(),
                   " fields, where the first line has ", header.size());
    const auto height = number_in_field(fields[*value]);
    MT_CHECK_INPUT(height && std::isfinite(*height) && *height >= 0, place, "\"", fields[*value],
                   "\" is no number that a bar can show");
    bars.push_back({fields[*label], fields[*group], *height});
  }
  MT_CHECK_INPUT(!bars.empty(), path.string(), " has a header and no row");
  return bars;
}

void draw_bars(const std::vector<ValueBar>& bars, const fs::path& path, const std::string& title,
               const std::string& axis) {
  check_picture_name(path);
  MT_CHECK_CONFIG(!bars.empty(), "cannot draw ", path.string(), ": there is no bar");
  const Places places = places_of(bars);
  std::vector<PlotData> data;
  std::string plot;
  for (size_t label = 0; label < places.labels.size(); ++label) {
    std::string lines;
    for (size_t i = 0; i < bars.size(); ++i)
      if (bars[i].label == places.labels[label])
        lines += formatted("%.9g %.9g\n", places.centres[i], bars[i].value);
    data.push_back({concat(label), std::move(lines)});
    plot +=
        concat(label == 0 ? "plot " : ", \\\n  ", "'", label, "' using 1:2:(", kBarWidth,
               ") with boxes linecolor rgb ", gnuplot_colour(kColours[label % std::size(kColours)]),
               " title ", gnuplot_quoted(places.labels[label]));
  }
  const double highest =
      std::max_element(bars.begin(), bars.end(), [](const auto& a, const auto& b) {
        return a.value < b.value;
      })->value;
  const std::string script = concat(
      "set title ", gnuplot_quoted(title), "\nset ylabel ", gnuplot_quoted(axis),
      "\nset border 3 linecolor rgb '#606060'\nset ytics nomirror out textcolor rgb '#303030'\n",
      "unset xtics\nset grid ytics linecolor rgb '#e0e0e0' linetype 1 linewidth 0.5\n",
      "set style fill solid 1 noborder\nset key above right horizontal Left reverse samplen 2\n",
      "set bmargin 3\nset rmargin 4\n", formatted("set xrange [0:%.9g]\n", places.width),
      formatted("set yrange [0:%.9g]\n", highest > 0 ? 1.2 * highest : 1.0),
      labels_text(bars, places), plot, "\n");
  const auto width = static_cast<int>(std::clamp(130 * places.width, 600.0, 2000.0));
  draw_with_gnuplot(path, {width, 520}, script, data);
}

}  // namespace moetron
