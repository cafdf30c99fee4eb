// A file that several writers fill at places of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>

namespace moetron {

// Memory for what is written, at such a place that it need not be copied to the system's page
// cache.
class WriteBuffer {
 public:
  static constexpr size_t kAlignment = 4096;  // of memory and of places in a file
  // Room for so many bytes at least; what was there is lost where it grows. std::bad_alloc.
  std::span<std::byte> room(size_t bytes);

 private:
  struct Free {
    void operator()(std::byte* memory) const { std::free(memory); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  size_t size_ = 0;
};

// ConfigError, with the path and the system's reason, where something cannot be done. Writes of
// different places may come from several threads.
class PlacedWriter {
 public:
  // Makes the file anew, at its full size in bytes; without a size it opens one that is there.
  // `whose` ends every complaint.
  explicit PlacedWriter(const std::filesystem::path& path,
                        std::optional<uint64_t> size = std::nullopt, std::string whose = "");
  ~PlacedWriter();
  PlacedWriter(const PlacedWriter&) = delete;
  PlacedWriter& operator=(const PlacedWriter&) = delete;

  // What begins at a multiple of WriteBuffer::kAlignment, in memory and in the file, goes to the
  // disk past the page cache, but for a last part of a page: a run that holds its memory gets pages
  // that are slow to fill, and needs those that it would displace. Where the file system cannot,
  // and anything else, goes through the cache.
  void write(std::span<const std::byte> bytes, uint64_t place);
  void sync();  // through to the disk

 private:
  void check(bool done) const;
  // How many of the first bytes are on the disk.
  size_t write_directly(std::span<const std::byte> bytes, uint64_t place);

  std::filesystem::path path_;
  std::string whose_;
  int fd_ = -1;
  int direct_ = -1;  // the same file past the page cache; -1: there is no such way
};

}  // namespace moetron
