// Files: whole reads, read-only maps, and writes that appear whole or not at all. Errors are
// InputError (reading) or ConfigError (a place that cannot be written), naming the path and the
// system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace moetron {

std::string read_file(const std::filesystem::path& path);

// A file mapped read-only for the object's life.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }
  size_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  // Throws InputError where the file has become shorter: behind its new end the last page that it
  // still has reads as zeros. To be called when something was read. What replaced the file by a
  // rename does not count.
  void check_whole() const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  uint64_t inode_ = 0;
};

// Reads at any place, without a map: where the disk fails, that is an InputError, not a signal.
class FileReader {
 public:
  explicit FileReader(const std::filesystem::path& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  size_t size() const { return size_; }  // bytes, when it was opened
  // Fills `out` from byte `place` on.
  void read(size_t place, std::span<std::byte> out) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
  size_t size_ = 0;
};

// A buffered file that is written front to back. It lives under `path` + ".tmp" until commit(),
// which flushes it to the disk (fsync), renames it and fsyncs the folder; without commit() it is
// removed. Of several writers of one path at once, each has a temporary file of its own.
class FileWriter {
 public:
  explicit FileWriter(const std::filesystem::path& path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  uint64_t position() const { return position_; }
  // Brings what was written to the disk, still under the temporary name: what can fail for want of
  // space has then been done. commit() does it too.
  void sync();
  void commit();

 private:
  void flush();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  uint64_t position_ = 0;
  std::string buffer_;
};

// FileWriter in one call.
void write_file(const std::filesystem::path& path, std::string_view text);

// Renames a finished folder or file into place and makes the rename durable.
void rename_durable(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes the entries of a folder durable.
void sync_folder(const std::filesystem::path& folder);

}  // namespace moetron
