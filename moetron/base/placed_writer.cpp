#include "moetron/base/placed_writer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {

PlacedWriter::PlacedWriter(const std::filesystem::path& path, std::optional<uint64_t> size,
                           std::string whose)
    : path_(path),
      whose_(std::move(whose)),
      fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | (size ? O_CREAT | O_TRUNC : 0), 0644)) {
  check(fd_ >= 0);
  if (!size || ::ftruncate(fd_, static_cast<off_t>(*size)) == 0) return;
  const int error = errno;
  ::close(fd_);
  errno = error;
  check(false);
}

PlacedWriter::~PlacedWriter() {
  ::close(fd_);
}

void PlacedWriter::write(std::span<const std::byte> bytes, uint64_t place) {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0);
    bytes = bytes.subspan(static_cast<size_t>(written));
    place += static_cast<uint64_t>(written);
  }
}

void PlacedWriter::sync() {
  check(::fsync(fd_) == 0);
}

void PlacedWriter::check(bool done) const {
  const int error = errno;
  MT_CHECK_CONFIG(done, "cannot write ", path_.string(), ": ", std::strerror(error), whose_);
}

}  // namespace moetron
