// A folder for this process alone, which is deleted in the end.
#pragma once

#include <filesystem>
#include <string>

namespace moetron {

class TemporaryFolder {
 public:
  // Below TMPDIR (/tmp); its name begins with "moetron-" and `purpose`. Throws ConfigError where it
  // cannot be made.
  explicit TemporaryFolder(const std::string& purpose);
  // The same below `where`, hidden by a dot.
  TemporaryFolder(const std::string& purpose, const std::filesystem::path& where);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace moetron
