// Bars of a number beside each other: what schedules, or settings, of a model reach.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/metrics/loss_history.h"

namespace moetron {

struct ValueBar {
  std::string label;  // "dualpipev"; has one colour in all groups
  std::string group;  // "DeepSeek-V3, EP 16"; may be empty
  double value = 0;   // finite, not below 0
};

// The median of a run's values without its first steps, which are slower: without three, or half
// of fewer than six. Throws InputError naming the run where it has no finite value.
double settled_median(const History& history, const std::string& run);

// Whether a text is a table (CSV) whose header has the columns label and group.
bool is_bar_table(std::string_view text);
// Its values stand in the column "value", or in one with the metric's name. Throws InputError
// naming file and line where a value is missing, no number, not finite or below 0.
std::vector<ValueBar> read_value_bars(std::string_view text, const std::filesystem::path& path,
                                      const std::string& metric);

// Groups and labels from left to right as they first come; above each bar its value and, over the
// first bar of its group, by how much it is larger. The name's end, .png or .svg, decides the kind
// of picture. Throws ConfigError as draw_with_gnuplot(), and without a bar.
void draw_bars(const std::vector<ValueBar>& bars, const std::filesystem::path& path,
               const std::string& title, const std::string& axis);

}  // namespace moetron
