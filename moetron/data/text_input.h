// Text files as the preprocessor sees them, and how they are cut into batches of documents that
// threads can encode on their own.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/base/file.h"
#include "moetron/data/text_format.h"

namespace moetron {

struct InputList {
  std::vector<std::filesystem::path> files;
  std::vector<std::filesystem::path> left_out;  // of folders: no data
  uint64_t bytes = 0;
};

// Files as given, folders replaced by the data that they hold. Without a `format` that is what
// names or contents tell: see data/preprocess.h. Throws InputError for a path that is absent.
InputList list_inputs(const std::vector<std::filesystem::path>& inputs,
                      std::optional<TextKind> format);

// What a batch hands over: the texts of one document, one for each key, or the reason why there is
// none ("bad line"), and where: "FILE line 12".
class DocumentSink {
 public:
  virtual ~DocumentSink() = default;
  // Gives the reason why the document cannot be taken, or "".
  virtual std::string add(std::span<const std::string_view> texts) = 0;
  virtual void refuse(const std::string& place, const std::string& reason) = 0;
};

// Some documents of one file, parsed when read() is called, by any thread.
struct TextBatch {
  uint64_t bytes = 0;  // of input
  std::function<void(DocumentSink*)> read;
};

// Calls `emit` with the batches of a file in order. The file stays mapped until the last is gone.
// Without a `format`, InputError where the name and the content contradict each other.
void cut_into_batches(const std::filesystem::path& path, const std::vector<std::string>& keys,
                      std::optional<TextKind> format, const std::function<void(TextBatch)>& emit);

}  // namespace moetron
