// The bytes of a file that may be compressed (gzip or Zstandard, told by its first bytes), front to
// back in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace moetron {

class ByteSource {
 public:
  // InputError where the file cannot be opened.
  static std::unique_ptr<ByteSource> open(const std::filesystem::path& path);
  virtual ~ByteSource() = default;

  // Fills some of `out`; 0 at the end. InputError: a file that cannot be read, is damaged or cut
  // short.
  virtual size_t read(std::span<char> out) = 0;
  virtual uint64_t bytes_done() const = 0;  // of the file as it lies there
  virtual uint64_t bytes_in_all() const = 0;
};

}  // namespace moetron
