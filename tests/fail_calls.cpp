// Preloaded into a program under test (LD_PRELOAD): makes calls of the system fail that concern
// files below a folder, as a bad or full disk does. The environment says which:
//   FAIL_BELOW   the folder, an absolute path without links
//   FAIL_CALL    open, read, write, fsync, rename, mkdir, unlink or opendir
//   FAIL_NUMBER  the first such call that fails, from 1; 0: none
//   FAIL_TIMES   how many do from there on
//   FAIL_ERRNO   with what number
//   FAIL_SPACE   bytes that statvfs tells are free, in place of the truth
//   FAIL_COUNTS  a file that gets, at the end, a line "CALL NUMBER" of each call seen
// Calls of one kind are counted together, whatever their variant. Reads through a map do not fail.
#include <array>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <string>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

constexpr std::array<const char*, 8> kCalls = {"open",   "read",  "write",  "fsync",
                                               "rename", "mkdir", "unlink", "opendir"};
enum Call : size_t { kOpen, kRead, kWrite, kFsync, kRename, kMkdir, kUnlink, kOpendir };

long number_of(const char* variable, long otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::atol(text) : otherwise;
}

class Faults {
 public:
  Faults() {
    if (const char* folder = std::getenv("FAIL_BELOW")) folder_ = folder;
    if (const char* call = std::getenv("FAIL_CALL")) call_ = call;
  }
  void write_counts() {
    const char* path = std::getenv("FAIL_COUNTS");
    if (path == nullptr) return;
    folder_.clear();
    FILE* file = std::fopen(path, "w");
    for (size_t i = 0; file != nullptr && i < kCalls.size(); ++i)
      std::fprintf(file, "%s %ld\n", kCalls[i], seen_[i].load());
    if (file != nullptr) std::fclose(file);
  }

  // Whether this call fails; errno is set then.
  bool fails(Call call, const std::string& path) {
    if (folder_.empty() || path.compare(0, folder_.size(), folder_) != 0) return false;
    const long number = ++seen_[call];
    if (call_ != kCalls[call] || first_ == 0 || number < first_ || number >= first_ + times_)
      return false;
    errno = error_;
    return true;
  }

 private:
  std::string folder_;
  std::string call_;
  long first_ = number_of("FAIL_NUMBER", 0);
  long times_ = number_of("FAIL_TIMES", 1);
  int error_ = static_cast<int>(number_of("FAIL_ERRNO", EIO));
  std::array<std::atomic<long>, kCalls.size()> seen_{};
};

// Never destroyed: destructors of other objects may still close files.
Faults& faults() {
  static Faults* instance = [] {
    std::atexit([] { faults().write_counts(); });
    return new Faults;
  }();
  return *instance;
}

std::string path_of(int fd) {
  std::array<char, 4096> path{};
  const std::string link = "/proc/self/fd/" + std::to_string(fd);
  const ssize_t size = ::readlink(link.c_str(), path.data(), path.size());
  return {path.data(), static_cast<size_t>(size > 0 ? size : 0)};
}

std::string absolute(int folder, const char* path) {
  if (path == nullptr || path[0] == '/') return path != nullptr ? path : "";
  if (folder != AT_FDCWD) return path_of(folder) + "/" + path;
  std::array<char, 4096> here{};
  return ::getcwd(here.data(), here.size()) != nullptr ? std::string(here.data()) + "/" + path
                                                       : path;
}

template <class Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

mode_t mode_argument(int flags, va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? static_cast<mode_t>(va_arg(arguments, int)) : 0;
}

}  // namespace

#define FAULT_OPEN(name)                                                  \
  int name(const char* path, int flags, ...) {                            \
    va_list arguments;                                                    \
    va_start(arguments, flags);                                           \
    const mode_t mode = mode_argument(flags, arguments);                  \
    va_end(arguments);                                                    \
    if (faults().fails(kOpen, absolute(AT_FDCWD, path))) return -1;       \
    return real<int(const char*, int, mode_t)>(#name)(path, flags, mode); \
  }
#define FAULT_OPENAT(name)                                                             \
  int name(int folder, const char* path, int flags, ...) {                             \
    va_list arguments;                                                                 \
    va_start(arguments, flags);                                                        \
    const mode_t mode = mode_argument(flags, arguments);                               \
    va_end(arguments);                                                                 \
    if (faults().fails(kOpen, absolute(folder, path))) return -1;                      \
    return real<int(int, const char*, int, mode_t)>(#name)(folder, path, flags, mode); \
  }
#define FAULT_AT_PLACE(name, call, type)                                          \
  ssize_t name(int fd, type data, size_t size, off_t place) {                     \
    if (faults().fails(call, path_of(fd))) return -1;                             \
    return real<ssize_t(int, type, size_t, off_t)>(#name)(fd, data, size, place); \
  }

extern "C" {

FAULT_OPEN(open)
FAULT_OPEN(open64)
FAULT_OPENAT(openat)
FAULT_OPENAT(openat64)
FAULT_AT_PLACE(pread, kRead, void*)
FAULT_AT_PLACE(pread64, kRead, void*)
FAULT_AT_PLACE(pwrite, kWrite, const void*)
FAULT_AT_PLACE(pwrite64, kWrite, const void*)

ssize_t read(int fd, void* data, size_t size) {
  if (faults().fails(kRead, path_of(fd))) return -1;
  return real<ssize_t(int, void*, size_t)>("read")(fd, data, size);
}
ssize_t write(int fd, const void* data, size_t size) {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  return real<ssize_t(int, const void*, size_t)>("write")(fd, data, size);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  return real<ssize_t(int, const struct iovec*, int)>("writev")(fd, parts, count);
}
int ftruncate(int fd, off_t size) noexcept {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  return real<int(int, off_t)>("ftruncate")(fd, size);
}
int fsync(int fd) {
  if (faults().fails(kFsync, path_of(fd))) return -1;
  return real<int(int)>("fsync")(fd);
}
int rename(const char* from, const char* to) noexcept {
  if (faults().fails(kRename, absolute(AT_FDCWD, to))) return -1;
  return real<int(const char*, const char*)>("rename")(from, to);
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  if (faults().fails(kRename, absolute(to_folder, to))) return -1;
  return real<int(int, const char*, int, const char*, unsigned)>("renameat2")(from_folder, from,
                                                                              to_folder, to, flags);
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (faults().fails(kMkdir, absolute(AT_FDCWD, path))) return -1;
  return real<int(const char*, mode_t)>("mkdir")(path, mode);
}
int unlink(const char* path) noexcept {
  if (faults().fails(kUnlink, absolute(AT_FDCWD, path))) return -1;
  return real<int(const char*)>("unlink")(path);
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  if (faults().fails(kUnlink, absolute(folder, path))) return -1;
  return real<int(int, const char*, int)>("unlinkat")(folder, path, flags);
}
int remove(const char* path) noexcept {
  if (faults().fails(kUnlink, absolute(AT_FDCWD, path))) return -1;
  return real<int(const char*)>("remove")(path);
}
DIR* opendir(const char* path) {
  if (faults().fails(kOpendir, absolute(AT_FDCWD, path))) return nullptr;
  return real<DIR*(const char*)>("opendir")(path);
}
DIR* fdopendir(int fd) {
  if (faults().fails(kOpendir, path_of(fd))) return nullptr;
  return real<DIR*(int)>("fdopendir")(fd);
}
int statvfs(const char* path, struct statvfs* told) noexcept {
  const int result = real<int(const char*, struct statvfs*)>("statvfs")(path, told);
  const long space = number_of("FAIL_SPACE", -1);
  if (result == 0 && space >= 0) told->f_bavail = static_cast<fsblkcnt_t>(space) / told->f_frsize;
  return result;
}

}  // extern "C"
