// A folder for this process alone, below TMPDIR (/tmp), which is deleted in the end.
#pragma once

#include <filesystem>
#include <string>

namespace moetron {

class TemporaryFolder {
 public:
  // Its name begins with "moetron-" and `purpose`. Throws ConfigError where it cannot be made.
  explicit TemporaryFolder(const std::string& purpose);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace moetron
