#include "moetron/data/text_input.h"

#include <algorithm>
#include <cstring>
#include <fstream>

#include <simdjson.h>

#include "moetron/base/error.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

constexpr size_t kBatchBytes = size_t{1} << 20;  // enough to hide the hand-over between threads
constexpr size_t kProbeBytes = 8192;             // of an unknown file, to see whether it is text
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kSpace = " \t\r\n";

bool is_blank(std::string_view text) {
  return text.find_first_not_of(kSpace) == std::string_view::npos;
}

bool is_text(const fs::path& path) {
  const fs::path ending = path.extension();
  if (ending == ".jsonl" || ending == ".json" || ending == ".txt") return true;
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

void list_folder(const fs::path& folder, InputList* list) {
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
  for (const fs::path& path : found) {
    if (is_text(path))
      list->files.push_back(path);
    else
      ++list->skipped_files;
  }
}

// One object's strings under the keys, checked. Views live as long as the parser's document.
class FieldReader {
 public:
  explicit FieldReader(const std::vector<std::string>& keys) : keys_(keys), texts_(keys.size()) {}

  // Null when all is well, else what is wrong.
  const char* read(simdjson::dom::element document) {
    simdjson::dom::object object;
    if (document.get(object)) return "no JSON object";
    for (size_t i = 0; i < keys_.size(); ++i) {
      simdjson::dom::element value;
      missing_ = "no key \"" + keys_[i] + "\"";
      if (object.at_key(keys_[i]).get(value)) return missing_.c_str();
      missing_ = "no string under \"" + keys_[i] + "\"";
      if (value.get(texts_[i])) return missing_.c_str();
    }
    return nullptr;
  }
  std::span<const std::string_view> texts() const { return texts_; }

 private:
  const std::vector<std::string>& keys_;
  std::vector<std::string_view> texts_;
  std::string missing_;
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
  simdjson::dom::parser parser;
  FieldReader reader(source.keys);
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (is_blank(line)) continue;
    simdjson::dom::element document;
    const auto error = parser.parse(line.data(), line.size()).get(document);
    const char* reason = error ? simdjson::error_message(error) : reader.read(document);
    if (reason == nullptr)
      sink->add(reader.texts());
    else
      sink->refuse(source.place(line.data()), reason);
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
  simdjson::dom::parser parser;
};

void read_element(const Source& source, simdjson::dom::element element, size_t number,
                  FieldReader* reader, DocumentSink* sink) {
  const char* reason = reader->read(element);
  if (reason == nullptr)
    sink->add(reader->texts());
  else
    sink->refuse(source.file.path().string() + " element " + std::to_string(number), reason);
}

// A whole JSON file: an array's elements go into batches of about equal shares of its bytes.
void cut_document(const SharedSource& source, const std::function<void(TextBatch)>& emit) {
  auto parsed = std::make_shared<ParsedFile>();
  parsed->source = source;
  simdjson::dom::element root;
  const auto error = parsed->parser.parse(source->text.data(), source->text.size()).get(root);
  if (error) {
    emit({source->text.size(), [source, error](DocumentSink* sink) {
            sink->refuse(source->file.path().string(), simdjson::error_message(error));
          }});
    return;
  }
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

// Many corpora give JSON lines the ending .json: then the first line is an object of its own.
bool holds_lines(std::string_view text) {
  const size_t end = text.find('\n');
  if (end == std::string_view::npos || is_blank(text.substr(end))) return false;
  simdjson::dom::parser parser;
  simdjson::dom::object object;
  return !parser.parse(text.data(), end).get(object);
}

void cut_plain_text(const SharedSource& source, const std::function<void(TextBatch)>& emit) {
  emit({source->text.size(), [source](DocumentSink* sink) {
          if (simdjson::validate_utf8(source->text.data(), source->text.size()))
            sink->add(std::span(&source->text, 1));
          else
            sink->refuse(source->file.path().string(), "not valid UTF-8");
        }});
}

}  // namespace

InputList list_inputs(const std::vector<fs::path>& inputs) {
  InputList list;
  for (const fs::path& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    MT_CHECK_INPUT(fs::exists(status), "input ", input.string(), " does not exist");
    if (fs::is_directory(status))
      list_folder(input, &list);
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
                      const std::function<void(TextBatch)>& emit) {
  auto source = std::make_shared<Source>(Source{MappedFile(path), {}, keys});
  source->text = source->file.text();
  if (source->text.starts_with(kByteOrderMark)) source->text.remove_prefix(kByteOrderMark.size());
  const fs::path ending = path.extension();
  if (ending == ".jsonl") return cut_lines(source, emit);
  if (ending == ".json") {
    const size_t first = source->text.find_first_not_of(kSpace);
    if (first != std::string_view::npos) source->text.remove_prefix(first);
    if (source->text.empty() || holds_lines(source->text)) return cut_lines(source, emit);
    return cut_document(source, emit);
  }
  MT_CHECK_CONFIG(keys.size() == 1, "json-keys names ", keys.size(), " keys, but ", path.string(),
                  " is plain text, which has one");
  cut_plain_text(source, emit);
}

}  // namespace moetron
