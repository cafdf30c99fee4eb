#include "moetron/metrics/loss_history.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/parse_number.h"
#include "moetron/base/path.h"
#include "moetron/metrics/curve_tables.h"
#include "moetron/metrics/event_reader.h"
#include "moetron/metrics/metric.h"
#include "moetron/metrics/metrics_file.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

// Takes an integer, and blanks before it, from the front of the text.
std::optional<int64_t> take_integer(std::string_view& text) {
  text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
  return take_number<int64_t>(text);
}

// What follows `key` in the text; nothing if it is not there.
std::optional<std::string_view> behind(std::string_view text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == std::string_view::npos) return std::nullopt;
  return text.substr(at + key.size());
}

// A line of Megatron's log that tells of a step; `fields` are "name: value", each followed by '|'.
//   " [2024-05-01 12:00:00] iteration        5/     100 | lm loss: 1.234567E+00 | grad norm: 1.2 |"
//   " validation loss at iteration 5 on validation set | lm loss value: 1.3E+00 | ..."
struct LogLine {
  int64_t step;
  std::string_view fields;
};

std::optional<LogLine> parse_log_line(std::string_view line) {
  const auto validation = behind(line, "validation loss at iteration ");
  auto rest = validation ? validation : behind(line, " iteration ");
  if (!rest) return std::nullopt;
  const auto step = take_integer(*rest);
  const auto fields = behind(*rest, "|");
  if (!step || !fields) return std::nullopt;
  const std::string_view between = trimmed(rest->substr(0, rest->size() - fields->size() - 1));
  const bool is_known =
      validation ? between.empty() || between == "on validation set" : between.starts_with('/');
  if (!is_known) return std::nullopt;
  return LogLine{*step, *fields};
}

std::optional<double> field_value(std::string_view fields, std::string_view name,
                                  const std::string& place) {
  // The last field may be cut short; a whole one ends with '|'.
  for (size_t end; (end = fields.find('|')) != std::string_view::npos;
       fields.remove_prefix(end + 1)) {
    const std::string_view field = fields.substr(0, end);
    const size_t colon = field.rfind(':');
    if (colon == std::string_view::npos || trimmed(field.substr(0, colon)) != name) continue;
    const auto value = parse_number<double>(trimmed(field.substr(colon + 1)));
    MT_CHECK_INPUT(value, place, ": ", name, " is not a number");
    return value;
  }
  return std::nullopt;
}

// The points of a log in the order in which they were written.
class Points {
 public:
  void add(int64_t step, double value) {
    if (!values_.empty() && step <= last_step_) add_resume(step, last_step_ - step + 1);
    values_[step] = value;
    last_step_ = step;
  }
  // Of a log that is in no order.
  void set(int64_t step, double value) { values_[step] = value; }
  // The run went on with this step, and did so many again.
  void add_resume(int64_t step, int64_t repeats) {
    // What was resumed behind this step is not in the curve any more.
    std::erase_if(resumes_, [&](const Resume& other) { return other.step >= step; });
    resumes_.push_back({step, repeats});
  }

  LoggedRun take() && {
    LoggedRun run;
    run.resumes = std::move(resumes_);
    for (const auto& [step, value] : values_) run.history.push_back({step, value});
    return run;
  }

 private:
  std::map<int64_t, double> values_;
  int64_t last_step_ = 0;
  std::vector<Resume> resumes_;  // by rising step
};

void read_metrics_file(const fs::path& path, const Metric& metric, Points& points) {
  for (const StepRecord& record : read_metrics(path)) {
    if (const std::optional<double> value = metric.of(record)) points.add(record.step, *value);
    if (record.resume_repeats) points.add_resume(record.step, *record.resume_repeats);
  }
}

void read_events(std::string_view bytes, const fs::path& path, const Metric& metric,
                 Points& points) {
  read_scalars(bytes, path, [&](std::string_view tag, int64_t step, double value) {
    if (tag == metric.tag || (!metric.megatron_tag.empty() && tag == metric.megatron_tag))
      points.add(step, value);
  });
}

void read_megatron_log(std::string_view text, const fs::path& path, const Metric& metric,
                       Points& points) {
  bool has_steps = false;
  for (int64_t number = 1; !text.empty(); ++number) {
    const auto line = parse_log_line(take_line(text));
    if (!line) continue;
    has_steps = true;
    if (metric.field.empty()) continue;
    const auto value = field_value(line->fields, metric.field, concat(path.string(), ":", number));
    if (value) points.add(line->step, *value * metric.field_factor);
  }
  MT_CHECK_INPUT(
      has_steps, path.string(),
      " holds no training steps: it is neither a metrics.jsonl, a log of Megatron, golden "
      "values of its tests (JSON), a table with a column of steps (CSV) nor a TensorBoard "
      "event file");
}

bool is_named_like_events(const fs::path& path) {
  return path.filename().string().find("tfevents") != std::string::npos;
}

enum class LogKind { kEvents, kGoldenValues, kCurveTable, kRecords, kMegatron };

LogKind kind_of(const fs::path& path, std::string_view text) {
  if (is_named_like_events(path) || is_event_file(text)) return LogKind::kEvents;
  if (is_golden_values(text)) return LogKind::kGoldenValues;
  if (is_curve_table(text)) return LogKind::kCurveTable;
  return trimmed(text.substr(0, 64)).starts_with('{') ? LogKind::kRecords : LogKind::kMegatron;
}

void read_into(const fs::path& path, const Metric& metric, Points& points) {
  const MappedFile file(path);
  const std::string_view text = file.text();
  switch (kind_of(path, text)) {
    case LogKind::kEvents:
      return read_events(text, path, metric, points);
    case LogKind::kGoldenValues:
      return read_golden_values(text, path, names_of(metric),
                                [&](int64_t step, double value) { points.set(step, value); });
    case LogKind::kCurveTable:
      return read_curve_table(text, path, names_of(metric),
                              [&](int64_t step, double value) { points.add(step, value); });
    case LogKind::kRecords:
      return read_metrics_file(path, metric, points);
    case LogKind::kMegatron:
      return read_megatron_log(text, path, metric, points);
  }
}

// Event files in the order of their names, which begin with the time.
void read_folder(const fs::path& folder, const Metric& metric, Points& points) {
  if (path_exists(folder / "metrics.jsonl"))
    return read_metrics_file(folder / "metrics.jsonl", metric, points);
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (is_named_like_events(*entry)) paths.push_back(*entry);
  MT_CHECK_INPUT(!error, "cannot read the folder ", folder.string(), ": ", error.message());
  MT_CHECK_INPUT(!paths.empty(), folder.string(),
                 " holds neither a metrics.jsonl nor TensorBoard event files");
  std::sort(paths.begin(), paths.end());
  for (const fs::path& path : paths) read_into(path, metric, points);
}

}  // namespace

void check_metric(const std::string& metric) {
  metric_named(metric);
}

std::string axis_name(const std::string& metric) {
  return metric_named(metric).axis;
}

LoggedRun read_run(const fs::path& path, const std::string& metric) {
  const Metric& wanted = metric_named(metric);
  Points points;
  if (is_folder(path)) {
    read_folder(path, wanted, points);
  } else {
    read_into(path, wanted, points);
  }
  return std::move(points).take();
}

std::optional<fs::path> metrics_file_of(const fs::path& path) {
  if (is_folder(path)) {
    const fs::path file = path / "metrics.jsonl";
    return path_exists(file) ? std::optional(file) : std::nullopt;
  }
  const MappedFile file(path);
  return kind_of(path, file.text()) == LogKind::kRecords ? std::optional(path) : std::nullopt;
}

History smoothed(const History& history, int64_t window) {
  History means;
  const auto size = static_cast<size_t>(window);
  for (size_t end = size; end <= history.size(); ++end) {
    double sum = 0;  // anew: a value that is not finite is left behind
    for (size_t i = end - size; i < end; ++i) sum += history[i].value;
    means.push_back({history[end - 1].step, sum / static_cast<double>(window)});
  }
  return means;
}

}  // namespace moetron
