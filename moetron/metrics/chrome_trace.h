// Spans of time as a Chrome trace (JSON), which Perfetto and chrome://tracing show.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "moetron/metrics/timeline.h"

namespace moetron {

struct Span {
  std::string name;         // "attention forward"
  int64_t process = 0;      // a rank
  int64_t track = 0;        // a stream or thread of that rank
  double start = 0.0;       // seconds
  double duration = 0.0;    // seconds
  std::string description;  // shown on a click; may be empty
  // One of chrome://tracing's names of colours; empty: its choice. Perfetto always chooses by the
  // name without its digits.
  std::string colour = {};
};

struct TrackName {
  int64_t process = 0;
  int64_t track = 0;
  std::string name;  // "compute"
};

// Processes are shown as "rank N". The file appears whole or not at all.
void write_chrome_trace(const std::filesystem::path& path, const std::vector<Span>& spans,
                        const std::vector<TrackName>& tracks);

// A timeline in the colours of its picture as near as chrome://tracing has them; a unit other than
// "s" counts as a second.
void write_timeline_trace(const std::filesystem::path& path, const Timeline& timeline);

}  // namespace moetron
