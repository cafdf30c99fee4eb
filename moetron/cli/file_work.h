// What the commands that read and write whole models share.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "moetron/metrics/progress_bar.h"

namespace moetron {

// Threads that read and write: as asked, or (0) as many as there are cores; 32 at most, for each
// takes memory.
int file_threads(int64_t asked);

// A bar on a terminal for work in pieces of about one size.
class BlockProgress {
 public:
  // `what`: "writes block".
  void show(const std::string& what, uint64_t done, uint64_t total);
  void hide() { bar_.reset(); }

 private:
  std::string what_;
  std::optional<ProgressBar> bar_;
  std::chrono::steady_clock::time_point last_;
};

// Finds before long work, not after it, that a file cannot be written, or is something else than
// what `writer` makes, which is replaced. Throws ConfigError or InputError naming `option`.
void check_output(const std::string& option, const std::string& file, const std::string& writer,
                  bool (*is_own)(std::string_view text));

}  // namespace moetron
