#include "moetron/base/file.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <tuple>
#include <unistd.h>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

// Opens for reading and returns {descriptor, size}; refuses folders.
std::pair<int, size_t> open_for_reading(const std::filesystem::path& path) {
  // A pipe would wait for whoever writes to it; it is refused below.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  MT_CHECK_INPUT(fd >= 0, "cannot read ", path.string(), ": ", std::strerror(errno));
  struct stat status {};
  const bool is_file = ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (!is_file) {
    ::close(fd);
    throw InputError(concat("cannot read ", path.string(), ": not a regular file"));
  }
  return {fd, static_cast<size_t>(status.st_size)};
}

// Whether the descriptor is the file of that name: a writer that has finished renames its own.
bool is_still_named(int fd, const std::filesystem::path& path) {
  struct stat opened {};
  struct stat named {};
  return ::fstat(fd, &opened) == 0 && ::stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

// Opens the first of PATH.tmp, PATH.1.tmp ... that no living writer holds, and empties what a
// killed one left there. Where the file system has no locks, that is PATH.tmp.
std::pair<int, std::filesystem::path> open_temporary(const std::filesystem::path& path) {
  constexpr int kMaxWriters = 1000;
  for (int number = 0; number < kMaxWriters;) {
    std::filesystem::path temporary = path;
    temporary += number == 0 ? ".tmp" : concat(".", number, ".tmp");
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    MT_CHECK_CONFIG(fd >= 0, "cannot write ", path.string(), ": ", std::strerror(errno));
    const bool is_taken = ::flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!is_taken && is_still_named(fd, temporary)) {
      const bool emptied = ::ftruncate(fd, 0) == 0;
      const int error = errno;
      if (!emptied) ::close(fd);
      MT_CHECK_CONFIG(emptied, "cannot write ", path.string(), ": ", std::strerror(error));
      return {fd, std::move(temporary)};
    }
    ::close(fd);
    if (is_taken) ++number;
  }
  throw ConfigError(
      concat("cannot write ", path.string(), ": ", kMaxWriters, " processes are writing it"));
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const auto [fd, size] = open_for_reading(path);
  std::string text(size, '\0');
  size_t done = 0;
  int failure = 0;
  while (done < size) {
    const ssize_t n = ::read(fd, text.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      failure = n < 0 ? errno : 0;
      break;
    }
    done += static_cast<size_t>(n);
  }
  ::close(fd);
  MT_CHECK_INPUT(failure == 0, "cannot read ", path.string(), ": ", std::strerror(failure));
  MT_CHECK_INPUT(done == size, "cannot read ", path.string(), ": got ", done, " of ", size,
                 " bytes");
  return text;
}

FileReader::FileReader(const std::filesystem::path& path) : path_(path) {
  std::tie(fd_, size_) = open_for_reading(path);
}

FileReader::~FileReader() {
  ::close(fd_);
}

void FileReader::read(size_t place, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(place));
    if (n < 0 && errno == EINTR) continue;
    MT_CHECK_INPUT(n >= 0, "cannot read ", path_.string(), ": ", std::strerror(errno));
    MT_CHECK_INPUT(n > 0, path_.string(), " was cut short while it was read");
    out = out.subspan(static_cast<size_t>(n));
    place += static_cast<size_t>(n);
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  const auto [fd, size] = open_for_reading(path);
  size_ = size;
  struct stat status {};
  if (::fstat(fd, &status) == 0) inode_ = status.st_ino;
  if (size_ > 0) {
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, fd, 0);
    const int error = errno;
    ::close(fd);
    MT_CHECK_INPUT(mapped != MAP_FAILED, "cannot map ", path.string(), ": ", std::strerror(error));
    data_ = static_cast<const std::byte*>(mapped);
  } else {
    ::close(fd);
  }
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      inode_(other.inode_) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(inode_, other.inode_);
  return *this;
}

void MappedFile::check_whole() const {
  struct stat status {};
  if (::stat(path_.c_str(), &status) != 0 || status.st_ino != inode_) return;
  MT_CHECK_INPUT(static_cast<size_t>(status.st_size) >= size_, path_.string(),
                 " was cut short while it was read");
}

FileWriter::FileWriter(const std::filesystem::path& path) : path_(path) {
  std::tie(fd_, temporary_) = open_temporary(path);
  buffer_.reserve(kBufferBytes);
}

FileWriter::~FileWriter() {
  if (fd_ < 0) return;
  if (is_still_named(fd_, temporary_)) ::unlink(temporary_.c_str());
  ::close(fd_);
}

void FileWriter::write(std::span<const std::byte> bytes) {
  const auto* data = reinterpret_cast<const char*>(bytes.data());
  position_ += bytes.size();
  if (buffer_.size() + bytes.size() > kBufferBytes) flush();
  if (bytes.size() < kBufferBytes) {
    buffer_.append(data, bytes.size());
    return;
  }
  buffer_.assign(data, bytes.size());
  flush();
}

void FileWriter::flush() {
  size_t done = 0;
  while (done < buffer_.size()) {
    const ssize_t n = ::write(fd_, buffer_.data() + done, buffer_.size() - done);
    if (n < 0 && errno == EINTR) continue;
    MT_CHECK_CONFIG(n >= 0, "cannot write ", path_.string(), ": ", std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  buffer_.clear();
}

void FileWriter::sync() {
  flush();
  const bool synced = ::fsync(fd_) == 0;
  MT_CHECK_CONFIG(synced, "cannot write ", path_.string(), ": ", std::strerror(errno));
}

void FileWriter::commit() {
  sync();
  // Closed behind the rename: until then the lock keeps others from taking the name.
  rename_durable(temporary_, path_);
  ::close(std::exchange(fd_, -1));
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  FileWriter writer(path);
  writer.write(text);
  writer.commit();
}

void rename_durable(const std::filesystem::path& from, const std::filesystem::path& to) {
  const bool renamed = ::rename(from.c_str(), to.c_str()) == 0;
  MT_CHECK_CONFIG(renamed, "cannot rename ", from.string(), " to ", to.string(), ": ",
                  std::strerror(errno));
  sync_folder(to.has_parent_path() ? to.parent_path() : ".");
}

void sync_folder(const std::filesystem::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  MT_CHECK_CONFIG(fd >= 0, "cannot open folder ", folder.string(), ": ", std::strerror(errno));
  const bool synced = ::fsync(fd) == 0;
  const int error = errno;
  ::close(fd);
  MT_CHECK_CONFIG(synced, "cannot sync folder ", folder.string(), ": ", std::strerror(error));
}

}  // namespace moetron
