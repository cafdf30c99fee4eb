// Spans of time as a Chrome trace (JSON), which Perfetto and chrome://tracing show.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace moetron {

struct Span {
  std::string name;         // "attention forward"
  int64_t process = 0;      // a rank
  int64_t track = 0;        // a stream or thread of that rank
  double start = 0.0;       // seconds
  double duration = 0.0;    // seconds
  std::string description;  // shown on a click; may be empty
};

struct TrackName {
  int64_t process = 0;
  int64_t track = 0;
  std::string name;  // "compute"
};

// Processes are shown as "rank N". The file appears whole or not at all.
void write_chrome_trace(const std::filesystem::path& path, const std::vector<Span>& spans,
                        const std::vector<TrackName>& tracks);

}  // namespace moetron
