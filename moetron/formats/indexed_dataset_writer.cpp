#include <limits>
#include <string_view>

#include "moetron/base/error.h"
#include "moetron/base/folder_lock.h"
#include "moetron/base/path.h"
#include "moetron/formats/indexed_dataset.h"

namespace moetron {
namespace {

template <class T>
std::string_view bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

template <class T>
void write_value(FileWriter* file, T value) {
  file->write(std::string_view(reinterpret_cast<const char*>(&value), sizeof(T)));
}

template <class Stored>
void append_tokens(std::span<const int32_t> tokens, const std::string& path, std::string* row) {
  for (const int32_t token : tokens) {
    const auto stored = static_cast<Stored>(token);
    MT_CHECK_CONFIG(static_cast<int64_t>(stored) == token, "token ", token,
                    " does not fit the type of ", path);
    row->append(reinterpret_cast<const char*>(&stored), sizeof stored);
  }
}

}  // namespace

IndexedDatasetWriter::IndexedDatasetWriter(const std::string& prefix, TokenType type)
    : type_(type),
      index_path_(prefix + ".idx"),
      tokens_(prefix + ".bin"),
      index_(prefix + ".idx") {}

void IndexedDatasetWriter::add_sequence(std::span<const int32_t> tokens) {
  MT_CHECK_CONFIG(tokens.size() <= std::numeric_limits<int32_t>::max(), "a sequence of ",
                  tokens.size(), " tokens is too long for ", index_path_.string());
  const std::string path = index_path_.string();
  row_.clear();
  switch (type_) {
    case TokenType::kUint8:
      append_tokens<uint8_t>(tokens, path, &row_);
      break;
    case TokenType::kInt8:
      append_tokens<int8_t>(tokens, path, &row_);
      break;
    case TokenType::kInt16:
      append_tokens<int16_t>(tokens, path, &row_);
      break;
    case TokenType::kUint16:
      append_tokens<uint16_t>(tokens, path, &row_);
      break;
    case TokenType::kInt32:
      append_tokens<int32_t>(tokens, path, &row_);
      break;
    case TokenType::kInt64:
      append_tokens<int64_t>(tokens, path, &row_);
      break;
  }
  tokens_.write(row_);
  lengths_.push_back(static_cast<int32_t>(tokens.size()));
  num_tokens_ += static_cast<int64_t>(tokens.size());
}

void IndexedDatasetWriter::end_document() {
  documents_.push_back(num_sequences());
}

void IndexedDatasetWriter::commit() {
  MT_CHECK(documents_.back() == num_sequences(), "sequences after the last end_document()");
  index_.write(std::string_view("MMIDIDX\x00\x00", 9));
  write_value(&index_, uint64_t{1});  // version
  write_value(&index_, static_cast<uint8_t>(type_));
  write_value(&index_, static_cast<uint64_t>(lengths_.size()));
  write_value(&index_, static_cast<uint64_t>(documents_.size()));
  index_.write(bytes_of(lengths_));
  int64_t pointer = 0;
  for (const int32_t length : lengths_) {
    write_value(&index_, pointer);
    pointer += int64_t{length} * static_cast<int64_t>(token_type_bytes(type_));
  }
  index_.write(bytes_of(documents_));
  tokens_.sync();
  index_.sync();
  put_in_place();
}

// An .idx of an earlier run must never describe the new .bin, so it goes first; it comes back where
// the new .bin cannot take its place. Of two writers of one prefix, the files of the one that comes
// last lie there, both of them.
void IndexedDatasetWriter::put_in_place() {
  const std::filesystem::path folder = index_path_.parent_path();
  const FolderLock lock(folder.empty() ? "." : folder);
  std::filesystem::path old = index_path_;
  old += ".old";
  const bool replaces = path_exists(index_path_);
  std::error_code ignored;
  if (replaces) rename_durable(index_path_, old);
  try {
    tokens_.commit();
  } catch (const ConfigError&) {
    if (replaces) std::filesystem::rename(old, index_path_, ignored);
    throw;
  }
  std::filesystem::remove(old, ignored);  // its .bin is gone
  index_.commit();
}

}  // namespace moetron
