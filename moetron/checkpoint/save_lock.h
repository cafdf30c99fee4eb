// One run at a time saves into a folder.
#pragma once

#include <filesystem>

namespace moetron {

// A lock on the file SAVE/.lock for the object's life, which the system frees when the process ends
// in whatever way. Rank 0 of a run holds it, from before anything in the folder is read.
class SaveLock {
 public:
  // Makes the folder where it is missing. ConfigError where another run holds the lock, naming the
  // folder and the holder's process and host, or where the folder cannot be made or written. Where
  // the file system has no locks, a warning.
  explicit SaveLock(const std::filesystem::path& save);
  ~SaveLock();
  SaveLock(const SaveLock&) = delete;
  SaveLock& operator=(const SaveLock&) = delete;

  // False where the file system has no locks: others may be at work in the folder.
  bool is_held() const { return is_held_; }

 private:
  int fd_ = -1;
  bool is_held_ = false;
};

}  // namespace moetron
