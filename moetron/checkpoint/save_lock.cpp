#include "moetron/checkpoint/save_lock.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <string>
#include <system_error>
#include <unistd.h>

#include "moetron/base/error.h"
#include "moetron/base/host_name.h"
#include "moetron/base/log.h"
#include "moetron/base/path.h"

namespace moetron {
namespace {

namespace fs = std::filesystem;

// "process 4711 on node12", as the file tells whoever finds it locked.
std::string describe_self() {
  return concat("process ", ::getpid(), " on ", host_name());
}

std::string read_holder(int fd) {
  std::array<char, 300> text{};
  const ssize_t size = ::pread(fd, text.data(), text.size(), 0);
  const std::string holder(text.data(), static_cast<size_t>(std::max<ssize_t>(size, 0)));
  return holder.empty() ? "an unknown process" : holder.substr(0, holder.find('\n'));
}

// What it says is for people: the lock counts, not the text.
void write_holder(int fd) {
  const std::string text = describe_self() + "\n";
  const bool written = ::ftruncate(fd, 0) == 0 && ::pwrite(fd, text.data(), text.size(), 0) > 0;
  if (!written) log_warning("cannot write down who holds the lock of the save folder");
}

}  // namespace

SaveLock::SaveLock(const fs::path& save) {
  std::error_code error;
  if (!is_folder(save)) fs::create_directories(save, error);
  MT_CHECK_CONFIG(!error, "save: cannot make the folder ", save.string(), ": ", error.message());
  fd_ = ::open((save / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  MT_CHECK_CONFIG(fd_ >= 0, "save: cannot write to ", save.string(), ": ", std::strerror(errno));
  // A lock of the open file, not of the process: closing another descriptor of it does not free it.
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  is_held_ = ::fcntl(fd_, F_OFD_SETLK, &request) == 0;
  const int reason = is_held_ ? 0 : errno;
  if (is_held_) {
    write_holder(fd_);
    return;
  }
  if (reason == EAGAIN || reason == EACCES) {
    const std::string holder = read_holder(fd_);
    ::close(fd_);
    throw ConfigError(concat("save: ", holder, " is saving into ", save.string(),
                             ", and two runs must not save into one folder"));
  }
  log_warning(concat("the file system of ", save.string(), " has no locks (", std::strerror(reason),
                     "): nothing but your care keeps another run from saving there"));
}

SaveLock::~SaveLock() {
  ::close(fd_);
}

}  // namespace moetron
