#include "moetron/base/folder_lock.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <thread>
#include <unistd.h>

#include "moetron/base/error.h"

namespace moetron {

FolderLock::FolderLock(const std::filesystem::path& folder, std::chrono::milliseconds patience)
    : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  MT_CHECK_CONFIG(fd_ >= 0, "cannot open the folder ", folder.string(), ": ", std::strerror(errno));
  const auto end = std::chrono::steady_clock::now() + patience;
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
    if (std::chrono::steady_clock::now() >= end) {
      ::close(fd_);
      throw ConfigError(concat("cannot write to ", folder.string(), ": for ", patience.count(),
                               " ms another process has been putting files in place there"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

FolderLock::~FolderLock() {
  ::close(fd_);
}

}  // namespace moetron
