// A timeline as a picture: a row for each rank, time to the right.
#pragma once

#include <filesystem>
#include <string>

#include "moetron/metrics/timeline.h"

namespace moetron {

// Ranks that communicate beside computing get a second, lower track. The name's end, .png or .svg,
// decides the kind of picture. Throws ConfigError if it is another, if there is no bar, or if
// gnuplot is missing or fails.
void draw_gantt(const Timeline& timeline, const std::filesystem::path& path,
                const std::string& title);

}  // namespace moetron
