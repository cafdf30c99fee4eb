#include "moetron/cli/file_work.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <thread>
#include <unistd.h>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/file.h"

namespace moetron {

int file_threads(int64_t asked) {
  // Each holds a block of 16 MiB and what it is made of, 60 MB at most: together less than 2 GiB.
  constexpr int64_t kMost = 32;
  const auto cores = static_cast<int64_t>(std::thread::hardware_concurrency());
  return static_cast<int>(std::clamp<int64_t>(asked > 0 ? asked : cores, 1, kMost));
}

void BlockProgress::show(const std::string& what, uint64_t done, uint64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (what != what_) {
    what_ = what;
    bar_.reset();
    bar_.emplace(std::cerr, terminal_width(STDERR_FILENO), static_cast<int64_t>(total),
                 what_.c_str());
    last_ = now;
    return;
  }
  const double seconds = std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  bar_->advance(static_cast<int64_t>(done), seconds);
}

void check_output(const std::string& option, const std::string& file, const std::string& writer,
                  bool (*is_own)(std::string_view text)) {
  std::error_code ignored;
  MT_CHECK_CONFIG(!std::filesystem::is_directory(file, ignored), option, " (", file,
                  ") is a folder: name a file");
  if (std::filesystem::exists(file, ignored))
    MT_CHECK_CONFIG(is_own(read_file(file)), option, " (", file, ") is there, and ", writer,
                    " did not write it: name another file");
  FileWriter(file).write("");  // goes without a trace
}

}  // namespace moetron
