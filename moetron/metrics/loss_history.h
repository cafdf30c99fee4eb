// A number of a training run over its steps, read from whatever log the run left.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace moetron {

struct HistoryPoint {
  int64_t step = 0;
  double value = 0;  // may be infinite or not a number

  bool operator==(const HistoryPoint&) const = default;
};
using History = std::vector<HistoryPoint>;  // by rising step, each step once

// A run that had stopped went on with this step.
struct Resume {
  int64_t step = 0;
  int64_t repeats = 0;  // steps that it did again, since its checkpoint was older; 0: none

  bool operator==(const Resume&) const = default;
};

struct LoggedRun {
  History history;
  std::vector<Resume> resumes;  // by rising step
};

// "loss", "grad_norm" ...: the names of our metrics.jsonl. Throws ConfigError naming the option
// `metric` and the known names.
void check_metric(const std::string& metric);
// With its unit: "loss (nats per token)".
std::string axis_name(const std::string& metric);

// Reads a metrics.jsonl, a log that Megatron printed, a TensorBoard event file (under our tags or
// Megatron's), the curves of metrics/curve_tables.h, or a folder with a metrics.jsonl or event
// files; what it is is seen in its contents.
// Of a step that comes twice, for a run went on from a checkpoint, the later value counts. A last
// line or record that is cut short, for the run goes on, is left out. Throws InputError naming the
// file if it is damaged or is none of these. Empty if it holds none of the metric.
// Resumes are those that a metrics.jsonl tells of, and those where a log goes back to a step that
// it had.
LoggedRun read_run(const std::filesystem::path& path, const std::string& metric);
// The metrics.jsonl that read_run() would read of a run; none where it is another log.
std::optional<std::filesystem::path> metrics_file_of(const std::filesystem::path& path);

// Of each point the mean of it and those before it, `window` together; the first window - 1 points
// are left out.
History smoothed(const History& history, int64_t window);

}  // namespace moetron
