// A file that several writers fill at places of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

namespace moetron {

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

  void write(std::span<const std::byte> bytes, uint64_t place);
  void sync();  // through to the disk

 private:
  void check(bool done) const;

  std::filesystem::path path_;
  std::string whose_;
  int fd_ = -1;
};

}  // namespace moetron
