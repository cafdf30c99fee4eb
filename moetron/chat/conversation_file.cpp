#include "moetron/chat/conversation_file.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "moetron/base/error.h"
#include "moetron/chat/byte_source.h"

namespace moetron {
namespace {

constexpr size_t kMaxRecord = size_t{64} << 20;

bool is_blank(char byte) {
  return byte == ' ' || byte == '\t' || byte == '\n' || byte == '\r';
}

// Whether a name says that there is a record a line: a.jsonl, a.ndjson.gz.
bool has_lines_name(std::filesystem::path path) {
  if (path.extension() == ".gz" || path.extension() == ".zst") path.replace_extension();
  return path.extension() == ".jsonl" || path.extension() == ".ndjson";
}

// How deep in brackets a JSON text is; strings are skipped.
class Nesting {
 public:
  void see(char byte) {
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (byte == '\\') {
        escaped_ = true;
      } else if (byte == '"') {
        in_string_ = false;
      }
    } else if (byte == '"') {
      in_string_ = true;
    } else if (byte == '{' || byte == '[') {
      ++depth_;
    } else if (byte == '}' || byte == ']') {
      --depth_;
    }
  }
  bool is_outside() const { return depth_ <= 0 && !in_string_; }

 private:
  int64_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

class RecordReader {
 public:
  RecordReader(const std::filesystem::path& path, const std::function<bool(RawRecord)>& take,
               const std::function<void(uint64_t, uint64_t)>& progress)
      : path_(path),
        source_(ByteSource::open(path)),
        take_(take),
        progress_(progress),
        buffer_(size_t{1} << 18) {}

  void run() {
    if (peek() == 0xEF) skip_byte_order_mark();
    while (peek() != kEnd && is_blank(static_cast<char>(peek()))) next();
    if (peek() == kEnd) return;
    if (has_lines_name(path_)) {
      read_lines({});
    } else if (peek() == '[') {
      next();
      read_array();
    } else {
      read_objects();
    }
  }

 private:
  static constexpr int kEnd = -1;

  int peek() {
    if (at_ < filled_) return static_cast<unsigned char>(buffer_[at_]);
    if (ended_) return kEnd;
    filled_ = source_->read(buffer_);
    at_ = 0;
    ended_ = filled_ == 0;
    if (progress_) progress_(source_->bytes_done(), source_->bytes_in_all());
    return ended_ ? kEnd : static_cast<unsigned char>(buffer_[0]);
  }
  char next() {
    const char byte = buffer_[at_++];
    if (byte == '\n') ++line_;
    return byte;
  }
  void skip_byte_order_mark() {
    for (const int byte : {0xEF, 0xBB, 0xBF})
      if (peek() == byte) next();
  }
  void append(std::string& record, char byte) const {
    record += byte;
    MT_CHECK_INPUT(record.size() <= kMaxRecord, path_.string(), " line ", line_,
                   ": a record is larger than ", kMaxRecord >> 20, " MiB");
  }
  bool give(std::string json, int64_t number, bool is_line) {
    return take_({.json = std::move(json), .number = number, .is_line = is_line});
  }

  // A record a line; `begun` is the first one's beginning, which is read already.
  void read_lines(std::string begun) {
    std::string record = std::move(begun);
    while (peek() != kEnd || !record.empty()) {
      const int64_t number = line_;
      while (peek() != kEnd && peek() != '\n') append(record, next());
      if (peek() == '\n') next();
      if (!record.empty() && record.back() == '\r') record.pop_back();
      const bool is_empty = std::all_of(record.begin(), record.end(), is_blank);
      if (!is_empty && !give(std::exchange(record, {}), number, true)) return;
      record.clear();
    }
  }

  // Behind "[": what stands between commas.
  void read_array() {
    int64_t number = 0;
    std::string record;
    Nesting nesting;
    bool is_closed = false;
    while (peek() != kEnd && !is_closed) {
      const char byte = next();
      const bool ends = nesting.is_outside() && (byte == ',' || byte == ']');
      is_closed = ends && byte == ']';
      if (!ends) {
        nesting.see(byte);
        if (!record.empty() || !is_blank(byte)) append(record, byte);
        continue;
      }
      if (is_closed && number == 0 && record.empty()) break;  // an empty array
      if (!give(std::exchange(record, {}), ++number, false)) return;
      nesting = {};
    }
    while (is_closed && peek() != kEnd) {  // what should not be there
      const char byte = next();
      if (!record.empty() || !is_blank(byte)) append(record, byte);
    }
    if (!is_closed || !record.empty())
      give(is_closed ? "] " + record : record + " the array does not end", ++number, false);
  }

  // Objects: one a line where the first line is one, else one after the other.
  void read_objects() {
    std::string record;
    Nesting nesting;
    const int64_t first = line_;
    while (peek() != kEnd && peek() != '\n') {
      const char byte = next();
      nesting.see(byte);
      append(record, byte);
    }
    if (nesting.is_outside()) {
      MT_CHECK(line_ == first, "a line was counted too early");
      read_lines(std::move(record));
      return;
    }
    int64_t number = 0;
    while (peek() != kEnd) {
      const char byte = next();
      if (record.empty() && is_blank(byte)) continue;
      nesting.see(byte);
      append(record, byte);
      if (!nesting.is_outside()) continue;
      if (!give(std::exchange(record, {}), ++number, false)) return;
      nesting = {};
    }
    if (!record.empty()) give(std::move(record), ++number, false);
  }

  const std::filesystem::path& path_;
  std::unique_ptr<ByteSource> source_;
  const std::function<bool(RawRecord)>& take_;
  const std::function<void(uint64_t, uint64_t)>& progress_;
  std::vector<char> buffer_;
  size_t at_ = 0;
  size_t filled_ = 0;
  bool ended_ = false;
  int64_t line_ = 1;
};

}  // namespace

std::string record_place(const std::filesystem::path& path, const RawRecord& record) {
  return concat(path.string(), record.is_line ? " line " : " record ", record.number);
}

void for_each_record(const std::filesystem::path& path, const std::function<bool(RawRecord)>& take,
                     const std::function<void(uint64_t, uint64_t)>& progress) {
  RecordReader(path, take, progress).run();
}

void ConversationCounts::add(const ConversationResult& result) {
  if (result.record) {
    ++shapes_[static_cast<size_t>(result.record->shape)];
    return;
  }
  constexpr int64_t kShown = 3;
  if (++refusals_[static_cast<size_t>(result.refused->refusal)] <= kShown)
    examples_.push_back(*result.refused);
}

int64_t ConversationCounts::taken() const {
  return std::accumulate(shapes_.begin(), shapes_.end(), int64_t{0});
}

int64_t ConversationCounts::refused() const {
  return std::accumulate(refusals_.begin(), refusals_.end(), int64_t{0});
}

std::string ConversationCounts::summary() const {
  std::string text = concat(taken(), " conversations");
  std::string shapes;
  for (size_t i = 0; i < shapes_.size(); ++i)
    if (shapes_[i] > 0)
      shapes += concat(shapes.empty() ? "" : ", ", shapes_[i], " ",
                       shape_name(static_cast<ConversationShape>(i)));
  if (!shapes.empty()) text += " (" + shapes + ")";
  for (size_t i = 0; i < refusals_.size(); ++i) {
    if (refusals_[i] == 0) continue;
    const auto refusal = static_cast<Refusal>(i);
    text += concat("\n", refusals_[i], " refused, ", refusal_name(refusal), ":");
    const char* separator = " ";
    for (const RefusedRecord& example : examples_) {
      if (example.refusal != refusal) continue;
      text += concat(separator, example.place, " (", example.detail, ")");
      separator = ", ";
    }
    if (refusals_[i] > 3) text += ", ...";
  }
  return text;
}

ConversationCounts read_conversations(const std::vector<std::filesystem::path>& paths,
                                      std::optional<ConversationShape> shape, bool strict,
                                      const std::function<void(ConversationRecord)>& take,
                                      const std::function<void(uint64_t, uint64_t)>& progress,
                                      ConversationUse use) {
  ConversationCounts counts;
  for (const std::filesystem::path& path : paths) {
    for_each_record(
        path,
        [&](const RawRecord& raw) {
          ConversationResult result =
              read_conversation(raw.json, record_place(path, raw), shape, use);
          MT_CHECK_INPUT(!strict || result.record, result.refused->place, ": ",
                         refusal_name(result.refused->refusal), ": ", result.refused->detail);
          counts.add(result);
          if (result.record) take(std::move(*result.record));
          return true;
        },
        progress);
  }
  return counts;
}

}  // namespace moetron
