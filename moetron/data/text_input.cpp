#include "moetron/data/text_input.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include "moetron/base/error.h"
#include "moetron/base/path.h"
#include "moetron/data/json_reading.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatchBytes = size_t{1} << 20;  // enough to hide the hand-over between threads
constexpr size_t kProbeBytes = 8192;             // of an unknown file, to see whether it is text
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
bool is_blank(std::string_view text) {
  return text.find_first_not_of(kBlanks) == std::string_view::npos;
}

bool is_text(const fs::path& path) {
  std::string probe(kProbeBytes, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(probe.data(), static_cast<std::streamsize>(probe.size()));
  probe.resize(static_cast<size_t>(file.gcount()));
  if (probe.find('\0') != std::string::npos) return false;
  // The probe may end inside a character, which has up to 4 bytes.
  for (size_t cut = 0; cut < 4 && cut <= probe.size(); ++cut)
    if (simdjson::validate_utf8(probe.data(), probe.size() - cut)) return true;
  return false;
}

// Whether a file of a folder is meant as data.
bool is_data(const fs::path& path, std::optional<TextKind> format) {
  if (is_about_data(path)) return false;
  // Damage in a file that is data by its name is told when it is read.
  if (kind_by_name(path, "")) return true;
  if (!is_text(path)) return false;
  return format || json_kind_by_content(MappedFile(path).text());
}

void list_folder(const fs::path& folder, std::optional<TextKind> format, InputList* list) {
  std::vector<fs::path> found;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  MT_CHECK_INPUT(!error, "cannot list ", folder.string(), ": ", error.message());
  while (entry != fs::recursive_directory_iterator()) {
    const bool hidden = entry->path().filename().string().starts_with('.');
    if (hidden) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file(error)) found.push_back(entry->path());
    entry.increment(error);
    MT_CHECK_INPUT(!error, "cannot list ", folder.string(), ": ", error.message());
  }
  std::sort(found.begin(), found.end());
  for (const fs::path& path : found)
    (is_data(path, format) ? list->files : list->left_out).push_back(path);
}

// One object's strings under the keys, checked. Views live as long as the parser's document.
class FieldReader {
 public:
  explicit FieldReader(const std::vector<std::string>& keys) : keys_(keys), texts_(keys.size()) {}

  // What is wrong, or "".
  std::string read(simdjson::dom::element document) {
    simdjson::dom::object object;
    if (document.get(object)) return "no JSON object";
    for (size_t i = 0; i < keys_.size(); ++i) {
      simdjson::dom::element value;
      if (last_value(object, keys_[i]).get(value)) return "no key \"" + keys_[i] + "\"";
      if (value.get(texts_[i])) return "no string under \"" + keys_[i] + "\"";
    }
    return "";
  }
  std::span<const std::string_view> texts() const { return texts_; }

 private:
  const std::vector<std::string>& keys_;
  std::vector<std::string_view> texts_;
};

// A mapped file, shared by its batches.
struct Source {
  MappedFile file;
  std::string_view text;  // without the byte order mark
  std::vector<std::string> keys;

  // Counted from 1, and only when a message needs it.
  std::string place(const char* at) const {
    const auto line = std::count(file.text().data(), at, '\n') + 1;
    return file.path().string() + " line " + std::to_string(line);
  }
};
using SharedSource = std::shared_ptr<const Source>;

void read_lines(const Source& source, std::string_view text, DocumentSink* sink) {
  JsonReading reading;
  FieldReader reader(source.keys);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (is_blank(line)) continue;
    std::string reason = reading.parse(line);
    if (reason.empty()) reason = reader.read(reading.root());
    if (reason.empty()) reason = sink->add(reader.texts());
    if (!reason.empty()) sink->refuse(source.place(line.data()), reason);
  }
}

void cut_lines(const SharedSource& source, const std::function<void(TextBatch)>& emit) {
  std::string_view rest = source->text;
  while (!rest.empty()) {
    const size_t newline = rest.find('\n', std::min(kBatchBytes, rest.size()) - 1);
    const size_t size = newline == std::string_view::npos ? rest.size() : newline + 1;
    const std::string_view part = rest.substr(0, size);
    emit({size, [source, part](DocumentSink* sink) { read_lines(*source, part, sink); }});
    rest.remove_prefix(size);
  }
}

// The text of one batch of array elements, over the parser that owns the strings.
struct ParsedFile {
  SharedSource source;
  JsonReading reading;
};

void read_element(const Source& source, simdjson::dom::element element, size_t number,
                  FieldReader* reader, DocumentSink* sink) {
  std::string reason = reader->read(element);
  if (reason.empty()) reason = sink->add(reader->texts());
  if (!reason.empty())
    sink->refuse(source.file.path().string() + " element " + std::to_string(number), reason);
}

// A whole JSON file: an array's elements go into batches of about equal shares of its bytes.
void cut_document(const SharedSource& source, const std::function<void(TextBatch)>& emit) {
  auto parsed = std::make_shared<ParsedFile>();
  parsed->source = source;
  const std::string error = parsed->reading.parse(source->text);
  if (!error.empty()) {
    emit({source->text.size(), [source, error](DocumentSink* sink) {
            sink->refuse(source->file.path().string(), error);
          }});
    return;
  }
  const simdjson::dom::element root = parsed->reading.root();
  std::vector<simdjson::dom::element> elements = {root};
  simdjson::dom::array array;
  if (!root.get(array)) elements.assign(array.begin(), array.end());
  const size_t count = elements.size();
  const size_t batches = std::clamp<size_t>(source->text.size() / kBatchBytes, 1, count + 1);
  const auto shared = std::make_shared<const decltype(elements)>(std::move(elements));
  for (size_t b = 0; b < batches; ++b) {
    const size_t begin = count * b / batches, end = count * (b + 1) / batches;
    const size_t bytes =
        source->text.size() * (b + 1) / batches - source->text.size() * b / batches;
    emit({bytes, [parsed, shared, begin, end](DocumentSink* sink) {
            FieldReader reader(parsed->source->keys);
            for (size_t i = begin; i < end; ++i)
              read_element(*parsed->source, (*shared)[i], i + 1, &reader, sink);
          }});
  }
}

void cut_plain_text(const SharedSource& source, const std::function<void(TextBatch)>& emit) {
  emit({source->text.size(), [source](DocumentSink* sink) {
          const bool is_utf8 = simdjson::validate_utf8(source->text.data(), source->text.size());
          const std::string reason =
              is_utf8 ? sink->add(std::span(&source->text, 1)) : "not valid UTF-8";
          if (!reason.empty()) sink->refuse(source->file.path().string(), reason);
        }});
}

TextKind kind_of(const Source& source, std::optional<TextKind> format) {
  if (format) return *format;
  const fs::path& path = source.file.path();
  const auto by_name = kind_by_name(path, source.text);
  if (by_name && *by_name != TextKind::kPlain) return *by_name;
  const auto by_content = json_kind_by_content(source.text);
  MT_CHECK_INPUT(!by_name || !by_content, path.string(),
                 " is plain text by its name, but JSON by its content; --format says which");
  return by_content.value_or(TextKind::kPlain);
}

}  // namespace

InputList list_inputs(const std::vector<fs::path>& inputs, std::optional<TextKind> format) {
  InputList list;
  for (const fs::path& input : inputs) {
    MT_CHECK_INPUT(path_exists(input), "input ", input.string(), " does not exist");
    if (is_folder(input))
      list_folder(input, format, &list);
    else
      list.files.push_back(input);
  }
  for (const fs::path& file : list.files) {
    std::error_code error;
    const uint64_t size = fs::file_size(file, error);
    MT_CHECK_INPUT(!error, "cannot read ", file.string(), ": ", error.message());
    list.bytes += size;
  }
  return list;
}

void cut_into_batches(const fs::path& path, const std::vector<std::string>& keys,
                      std::optional<TextKind> format, const std::function<void(TextBatch)>& emit) {
  auto source = std::make_shared<Source>(Source{MappedFile(path), {}, keys});
  source->text = source->file.text();
  if (source->text.starts_with(kByteOrderMark)) source->text.remove_prefix(kByteOrderMark.size());
  switch (kind_of(*source, format)) {
    case TextKind::kLines:
      return cut_lines(source, emit);
    case TextKind::kDocument:
      return cut_document(source, emit);
    case TextKind::kPlain:
      break;
  }
  MT_CHECK_CONFIG(keys.size() == 1, "json-keys names ", keys.size(), " keys, but ", path.string(),
                  " is plain text, which has one");
  cut_plain_text(source, emit);
}

}  // namespace moetron
