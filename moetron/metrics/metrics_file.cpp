#include "moetron/metrics/metrics_file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/base/file.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

// The text up to the next line break, which is skipped; nothing when no break is left.
std::optional<std::string_view> next_line(std::string_view& text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

// Whether a run that was cut short in its first record may have left this: the record's beginning,
// or the zeros that some file systems put in its place.
bool is_left_by_crash(std::string_view text) {
  constexpr std::string_view kBegin = "{\"step\":";
  if (text.find_first_not_of('\0') == std::string_view::npos) return true;
  const std::string_view begin = text.substr(0, kBegin.size());
  return text.find('\n') == std::string_view::npos && kBegin.starts_with(begin);
}

// Rewrites the file without what a run that continues after last_step must not find there. Returns
// how many records of later steps it held.
int64_t drop_lines_beyond(const std::filesystem::path& path, int64_t last_step) {
  const std::string before = read_file(path);
  std::string_view rest = before;
  std::string kept;
  int64_t num_records = 0, num_unreadable = 0, num_later = 0;
  while (const auto line = next_line(rest)) {
    try {
      if (parse_step_record(*line, path.string()).step <= last_step)
        kept.append(*line) += '\n';
      else
        ++num_later;
      ++num_records;
    } catch (const InputError&) {
      ++num_unreadable;
    }
  }
  if (!rest.empty()) ++num_unreadable;
  MT_CHECK_INPUT(num_records > 0 || is_left_by_crash(before), "metrics: ", path.string(),
                 " holds no record of a step, and would be emptied: name another file, or remove "
                 "it");
  if (num_unreadable > 0)
    log_warning(
        concat(path.string(), ": dropped ", num_unreadable,
               num_unreadable == 1 ? " line that is no record" : " lines that are no records"));
  if (kept != before) write_file(path, kept);
  return num_later;
}

}  // namespace

void for_each_record(
    std::string_view text, const std::filesystem::path& path,
    const std::function<void(const StepRecord& record, const RecordLine& line)>& visit) {
  int64_t line_number = 0;
  while (const auto text_of_line = next_line(text)) {
    const RecordLine line{*text_of_line, concat(path.string(), ":", ++line_number)};
    visit(parse_step_record(line.text, line.place), line);
  }
}

std::vector<StepRecord> read_metrics(const std::filesystem::path& path) {
  const std::string text = read_file(path);
  std::vector<StepRecord> records;
  for_each_record(text, path, [&](const StepRecord& record, const RecordLine&) {
    records.push_back(record);
    records.back().receipt.reset();
  });
  return records;
}

MetricsWriter::MetricsWriter(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  std::error_code ignored;  // open() reports what is wrong
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  const int64_t num_dropped = path_exists(path) ? drop_lines_beyond(path, last_step) : 0;
  if (last_step > 0) resume_repeats_ = num_dropped;
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  MT_CHECK_CONFIG(fd_ >= 0, "cannot write ", path.string(), ": ", std::strerror(errno));
}

MetricsWriter::~MetricsWriter() {
  ::close(fd_);
}

void MetricsWriter::write(const StepRecord& record) {
  if (resume_repeats_) {
    StepRecord first = record;
    first.resume_repeats = std::exchange(resume_repeats_, std::nullopt);
    pending_ += to_json_line(first) + "\n";
  } else {
    pending_ += to_json_line(record) + "\n";
  }
  while (!pending_.empty()) {
    const ssize_t written = ::write(fd_, pending_.data(), pending_.size());
    if (written < 0 && errno == EINTR) continue;
    MT_CHECK_CONFIG(written >= 0, "cannot write ", path_.string(), ": ", std::strerror(errno));
    pending_.erase(0, static_cast<size_t>(written));
  }
}

}  // namespace moetron
