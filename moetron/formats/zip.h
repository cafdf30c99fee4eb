// Zip archives as torch.save writes them: entries that are stored, not compressed, and whose data
// begins at multiples of 64 bytes, so that they can be mapped; zip64 where sizes demand it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "moetron/base/file.h"

namespace moetron {

// Where the data of an entry lies in the file, and the CRC-32 that its writer noted of it.
struct ZipEntry {
  uint64_t offset = 0;
  uint64_t bytes = 0;
  uint32_t crc = 0;
};
using ZipDirectory = std::map<std::string, ZipEntry, std::less<>>;

// Whether any entry has a CRC: torch.save can be told to leave them out, and then writes zeros.
bool has_crcs(const ZipDirectory& entries);
// The CRC-32 of `bytes` behind those that gave `before`; 0 before the first.
uint32_t zip_crc(std::span<const std::byte> bytes, uint32_t before = 0);
// Throws InputError, naming both, unless the CRC-32 of a record of `file` is the one expected.
void check_crc(const std::filesystem::path& file, std::string_view record, uint32_t expected,
               uint32_t found);

// Data whose CRC is to be checked, and what complaints call it.
struct ZipRecord {
  std::filesystem::path file;
  std::string name;
  ZipEntry entry;
};
// Reads all of them, in several threads, a few MiB at a time. Throws InputError, naming file and
// record, where the bytes are not those that were written.
void check_records(std::span<const ZipRecord> records, int num_threads);

// Bytes [begin, begin + size()) of a file, as if they were one: an archive may be a part of it.
class FileWindow {
 public:
  FileWindow(const FileReader& file, uint64_t begin, uint64_t size)
      : file_(file), begin_(begin), size_(size) {}
  FileWindow(const FileReader& file) : FileWindow(file, 0, file.size()) {}

  uint64_t begin() const { return begin_; }
  uint64_t size() const { return size_; }
  // Within the window.
  void read(uint64_t place, std::span<std::byte> out) const {
    file_.read(size_t(begin_ + place), out);
  }

 private:
  const FileReader& file_;
  uint64_t begin_;
  uint64_t size_;
};

// Whether the file begins as a zip archive does.
bool is_zip(const FileWindow& file);
// Reads the directory at the file's end and the place of every entry within it. `name` opens the
// message of every InputError: no zip, places beyond the file, compressed or encrypted entries, a
// name twice, entries that overlap.
ZipDirectory read_zip_directory(const FileWindow& file, const std::string& name);

// Writes an archive front to back: begin() and write() for each entry, then finish().
class ZipWriter {
 public:
  explicit ZipWriter(FileWriter& file) : file_(file) {}

  // `bytes` is the size of the entry, of which write() then gives no more and no less.
  void begin(const std::string& name, uint64_t bytes);
  void write(std::span<const std::byte> bytes);
  // begin() and write() in one.
  void add(const std::string& name, std::string_view text);
  void finish();

 private:
  struct Entry {
    std::string name;
    uint64_t header = 0;  // byte at which the entry's own header begins
    uint64_t bytes = 0;
    uint64_t written = 0;
    uint32_t crc = 0;
  };
  void end();

  FileWriter& file_;
  std::vector<Entry> entries_;
};

}  // namespace moetron
