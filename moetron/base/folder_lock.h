// One writer at a time puts files in place in a folder.
#pragma once

#include <chrono>
#include <filesystem>

namespace moetron {

// Holds up other FolderLocks of a folder, of any thread or process, for the object's life: for
// several renames that belong together, not for long work. Leaves no file behind. Waits for its
// turn, and throws ConfigError after `kPatience`. Where the file system has no locks, it does
// nothing.
class FolderLock {
 public:
  static constexpr std::chrono::seconds kPatience{60};

  explicit FolderLock(const std::filesystem::path& folder,
                      std::chrono::milliseconds patience = kPatience);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

}  // namespace moetron
