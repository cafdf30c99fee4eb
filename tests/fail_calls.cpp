// Preloaded into a program under test (LD_PRELOAD): makes calls of the system fail that concern
// files below a folder, as a bad or full disk does. The environment says which:
//   FAIL_BELOW   the folder, an absolute path without links
//   FAIL_CALL    open, create (an open that may make the file), read, write, fsync, rename, mkdir,
//                unlink or opendir
//   FAIL_NUMBER  the first such call that fails, from 1; 0: none
//   FAIL_TIMES   how many do from there on
//   FAIL_ERRNO   with what number
//   FAIL_SIGNAL  what the process sends itself in front of such a call, which then does not fail
//   FAIL_RANK    the only process, by its variable RANK, in which calls fail and are counted
//   FAIL_SLOW    milliseconds that each fsync takes longer
//   FAIL_SPACE   bytes that statvfs tells are free, in place of the truth
//   FAIL_MEMORY  a file that is read in place of /proc/meminfo
//   FAIL_COUNTS  a file that gets, at the end, a line "CALL NUMBER" of each call seen
//   FAIL_LOG     a file that gets a record of each call that has changed something, for
//   power_cut.py
// Calls of one kind are counted together, whatever their variant. Reads through a map do not fail.
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
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
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

constexpr std::array<const char*, 9> kCalls = {"open",   "create", "read",   "write",  "fsync",
                                               "rename", "mkdir",  "unlink", "opendir"};
enum Call : size_t { kOpen, kCreate, kRead, kWrite, kFsync, kRename, kMkdir, kUnlink, kOpendir };

long number_of(const char* variable, long otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::atol(text) : otherwise;
}

class Faults {
 public:
  Faults() {
    if (const char* folder = std::getenv("FAIL_BELOW")) folder_ = folder;
    if (const char* call = std::getenv("FAIL_CALL")) call_ = call;
    const char* rank = std::getenv("FAIL_RANK");
    const char* own_rank = std::getenv("RANK");
    is_meant_ = rank == nullptr || (own_rank != nullptr && std::strcmp(rank, own_rank) == 0);
    if (const char* log = std::getenv("FAIL_LOG")) {
      log_ = static_cast<int>(
          ::syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    }
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
    if (!is_below(path)) return false;
    if (call == kFsync && slow_ > 0) ::usleep(static_cast<useconds_t>(slow_ * 1000));
    if (!is_meant_) return false;
    const long number = ++seen_[call];
    if (call_ != kCalls[call] || first_ == 0 || number < first_ || number >= first_ + times_)
      return false;
    if (signal_ != 0) {
      ::kill(::getpid(), signal_);
      return false;
    }
    errno = error_;
    return true;
  }

  // Notes what was done, in one piece, so that the records of processes do not mix: a line
  // "CALL<tab>PATH<tab>OTHER PATH<tab>PLACE<tab>SIZE", and `data`, of SIZE bytes, if there is any.
  void log(const char* call, const std::string& path, const std::string& other = "",
           off_t place = 0, size_t size = 0, const void* data = nullptr) const {
    if (log_ < 0 || !is_below(path)) return;
    const int error = errno;
    std::string record = std::string(call) + "\t" + path + "\t" + other + "\t" +
                         std::to_string(place) + "\t" + std::to_string(size) + "\n";
    if (data != nullptr) record.append(static_cast<const char*>(data), size);
    ::syscall(SYS_write, log_, record.data(), record.size());
    errno = error;
  }

 private:
  bool is_below(const std::string& path) const {
    return !folder_.empty() && path.compare(0, folder_.size(), folder_) == 0;
  }

  std::string folder_;
  std::string call_;
  long first_ = number_of("FAIL_NUMBER", 0);
  long times_ = number_of("FAIL_TIMES", 1);
  int error_ = static_cast<int>(number_of("FAIL_ERRNO", EIO));
  int signal_ = static_cast<int>(number_of("FAIL_SIGNAL", 0));
  long slow_ = number_of("FAIL_SLOW", 0);
  bool is_meant_ = true;
  int log_ = -1;
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

namespace {

bool open_fails(const std::string& path, int flags) {
  return faults().fails(kOpen, path) || ((flags & O_CREAT) != 0 && faults().fails(kCreate, path));
}

int log_open(int fd, const std::string& path, int flags) {
  if (fd >= 0 && (flags & O_CREAT) != 0) faults().log("create", path);
  if (fd >= 0 && (flags & O_TRUNC) != 0) faults().log("truncate", path);
  return fd;
}

ssize_t log_write(ssize_t written, int fd, const void* data, off_t place) {
  if (written > 0)
    faults().log("write", path_of(fd), "", place, static_cast<size_t>(written), data);
  return written;
}

}  // namespace

#define FAULT_OPEN(name)                                                                          \
  int name(const char* path, int flags, ...) {                                                    \
    va_list arguments;                                                                            \
    va_start(arguments, flags);                                                                   \
    const mode_t mode = mode_argument(flags, arguments);                                          \
    va_end(arguments);                                                                            \
    const std::string whole = absolute(AT_FDCWD, path);                                           \
    if (open_fails(whole, flags)) return -1;                                                      \
    return log_open(real<int(const char*, int, mode_t)>(#name)(path, flags, mode), whole, flags); \
  }
#define FAULT_OPENAT(name)                                                                      \
  int name(int folder, const char* path, int flags, ...) {                                      \
    va_list arguments;                                                                          \
    va_start(arguments, flags);                                                                 \
    const mode_t mode = mode_argument(flags, arguments);                                        \
    va_end(arguments);                                                                          \
    const std::string whole = absolute(folder, path);                                           \
    if (open_fails(whole, flags)) return -1;                                                    \
    return log_open(real<int(int, const char*, int, mode_t)>(#name)(folder, path, flags, mode), \
                    whole, flags);                                                              \
  }
#define FAULT_PREAD(name)                                                          \
  ssize_t name(int fd, void* data, size_t size, off_t place) {                     \
    if (faults().fails(kRead, path_of(fd))) return -1;                             \
    return real<ssize_t(int, void*, size_t, off_t)>(#name)(fd, data, size, place); \
  }
#define FAULT_PWRITE(name)                                                            \
  ssize_t name(int fd, const void* data, size_t size, off_t place) {                  \
    if (faults().fails(kWrite, path_of(fd))) return -1;                               \
    const ssize_t written =                                                           \
        real<ssize_t(int, const void*, size_t, off_t)>(#name)(fd, data, size, place); \
    return log_write(written, fd, data, place);                                       \
  }

extern "C" {

FAULT_OPEN(open)
FAULT_OPEN(open64)
FAULT_OPENAT(openat)
FAULT_OPENAT(openat64)
FAULT_PREAD(pread)
FAULT_PREAD(pread64)
FAULT_PWRITE(pwrite)
FAULT_PWRITE(pwrite64)

ssize_t read(int fd, void* data, size_t size) {
  if (faults().fails(kRead, path_of(fd))) return -1;
  return real<ssize_t(int, void*, size_t)>("read")(fd, data, size);
}
ssize_t write(int fd, const void* data, size_t size) {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  const ssize_t written = real<ssize_t(int, const void*, size_t)>("write")(fd, data, size);
  return log_write(written, fd, data, written > 0 ? ::lseek(fd, 0, SEEK_CUR) - written : 0);
}
ssize_t writev(int fd, const struct iovec* parts, int count) {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  return real<ssize_t(int, const struct iovec*, int)>("writev")(fd, parts, count);
}
int ftruncate(int fd, off_t size) noexcept {
  if (faults().fails(kWrite, path_of(fd))) return -1;
  const int result = real<int(int, off_t)>("ftruncate")(fd, size);
  if (result == 0) faults().log("truncate", path_of(fd), "", size);
  return result;
}
int fsync(int fd) {
  if (faults().fails(kFsync, path_of(fd))) return -1;
  const int result = real<int(int)>("fsync")(fd);
  if (result == 0) faults().log("fsync", path_of(fd));
  return result;
}
int rename(const char* from, const char* to) noexcept {
  if (faults().fails(kRename, absolute(AT_FDCWD, to))) return -1;
  const int result = real<int(const char*, const char*)>("rename")(from, to);
  if (result == 0) faults().log("rename", absolute(AT_FDCWD, from), absolute(AT_FDCWD, to));
  return result;
}
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  if (faults().fails(kRename, absolute(to_folder, to))) return -1;
  const int result = real<int(int, const char*, int, const char*, unsigned)>("renameat2")(
      from_folder, from, to_folder, to, flags);
  if (result == 0) {
    faults().log((flags & RENAME_EXCHANGE) != 0 ? "exchange" : "rename",
                 absolute(from_folder, from), absolute(to_folder, to));
  }
  return result;
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (faults().fails(kMkdir, absolute(AT_FDCWD, path))) return -1;
  const int result = real<int(const char*, mode_t)>("mkdir")(path, mode);
  if (result == 0) faults().log("mkdir", absolute(AT_FDCWD, path));
  return result;
}
int unlink(const char* path) noexcept {
  if (faults().fails(kUnlink, absolute(AT_FDCWD, path))) return -1;
  const int result = real<int(const char*)>("unlink")(path);
  if (result == 0) faults().log("unlink", absolute(AT_FDCWD, path));
  return result;
}
int unlinkat(int folder, const char* path, int flags) noexcept {
  if (faults().fails(kUnlink, absolute(folder, path))) return -1;
  const int result = real<int(int, const char*, int)>("unlinkat")(folder, path, flags);
  if (result == 0) faults().log("unlink", absolute(folder, path));
  return result;
}
int remove(const char* path) noexcept {
  if (faults().fails(kUnlink, absolute(AT_FDCWD, path))) return -1;
  const int result = real<int(const char*)>("remove")(path);
  if (result == 0) faults().log("unlink", absolute(AT_FDCWD, path));
  return result;
}
DIR* opendir(const char* path) {
  if (faults().fails(kOpendir, absolute(AT_FDCWD, path))) return nullptr;
  return real<DIR*(const char*)>("opendir")(path);
}
DIR* fdopendir(int fd) {
  if (faults().fails(kOpendir, path_of(fd))) return nullptr;
  return real<DIR*(int)>("fdopendir")(fd);
}
FILE* fopen64(const char* path, const char* mode) {
  const char* told = std::getenv("FAIL_MEMORY");
  const bool is_meant = told != nullptr && std::strcmp(path, "/proc/meminfo") == 0;
  return real<FILE*(const char*, const char*)>("fopen64")(is_meant ? told : path, mode);
}
int statvfs(const char* path, struct statvfs* told) noexcept {
  const int result = real<int(const char*, struct statvfs*)>("statvfs")(path, told);
  const long space = number_of("FAIL_SPACE", -1);
  if (result == 0 && space >= 0) told->f_bavail = static_cast<fsblkcnt_t>(space) / told->f_frsize;
  return result;
}

}  // extern "C"
