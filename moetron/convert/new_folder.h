// A folder that appears whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>

namespace moetron {

class NewFolder {
 public:
  // `save` must not be there, or be an empty folder; what goes into it is made in a hidden folder
  // beside it, which is locked as long as this lives. Hidden folders there that nobody locks were
  // left by commands that were killed: they are removed, and a line says so. ConfigError where it
  // cannot be written, or where the disk has less room than `bytes`.
  NewFolder(const std::filesystem::path& save, uint64_t bytes);
  ~NewFolder();

  const std::filesystem::path& path() const { return path_; }  // until commit()
  // Makes the folder durable under its name.
  void commit();

 private:
  std::filesystem::path save_;
  class Hidden;
  std::unique_ptr<Hidden> hidden_;
  std::filesystem::path path_;
};

}  // namespace moetron
