// metrics.jsonl: one StepRecord a line, in order of steps.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/metrics/step_record.h"

namespace moetron {

struct RecordLine {
  std::string_view text;
  std::string place;  // "FILE:LINE", for messages
};
// Visits the records of a file's text in their order. A last line that a crash cut short (without
// line break) is dropped. Throws InputError with file and line number for any other line that is no
// record.
void for_each_record(
    std::string_view text, const std::filesystem::path& path,
    const std::function<void(const StepRecord& record, const RecordLine& line)>& visit);

// All of them at once, but without their receipts, which may take more memory than there is
// (metrics/compare_receipts.h reads those).
std::vector<StepRecord> read_metrics(const std::filesystem::path& path);

// Appends to the file. A resumed run repeats the steps after its checkpoint, so on opening the
// lines of steps beyond `last_step` go, and with them what a crash left behind: lines that are no
// records (a warning counts them). A fresh run passes 0; in one that goes on, the first record says
// how many steps went (StepRecord::resume_repeats).
class MetricsWriter {
 public:
  // Makes the folder if need be. Throws ConfigError if the file cannot be written, and InputError,
  // leaving it as it is, if it holds text of which no line is a record: it is somebody else's.
  MetricsWriter(const std::filesystem::path& path, int64_t last_step);
  ~MetricsWriter();
  MetricsWriter(const MetricsWriter&) = delete;
  MetricsWriter& operator=(const MetricsWriter&) = delete;

  // Hands the whole line to the system at once: a reader never sees half of it, and a crash of this
  // program loses none. Throws ConfigError if the system refuses; the next call then writes what is
  // missing, too.
  void write(const StepRecord& record);

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  std::optional<int64_t> resume_repeats_;  // until the first record is written
  std::string pending_;  // lines, the first perhaps begun, that the system has refused so far
};

}  // namespace moetron
