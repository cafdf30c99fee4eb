// Pictures drawn by gnuplot.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace moetron {

// A file that the script finds in its folder.
struct PlotData {
  std::string name;
  std::string text;
};

// In units of a screen's pixels; a PNG gets 1.6 times as many, and its text is as large.
struct PictureSize {
  int width = 1000;
  int height = 560;
};

// Draws the script's picture, for which terminal and output are set and the variable `text` is the
// size of its text. The end of the name, .png or
// .svg, decides the kind. Throws ConfigError if it is another, or if gnuplot is missing, fails, or
// is not done within the limit, when it is killed. Nothing temporary is left.
void draw_with_gnuplot(const std::filesystem::path& path, const PictureSize& size,
                       const std::string& script, const std::vector<PlotData>& data,
                       std::chrono::milliseconds limit = std::chrono::minutes(1));

// Throws ConfigError if the name's end is not one of those that can be drawn.
void check_picture_name(const std::filesystem::path& path);

// As a gnuplot string, whatever the text holds.
std::string gnuplot_quoted(std::string_view text);

// '#rrggbb', with quotes.
std::string gnuplot_colour(int colour);

}  // namespace moetron
