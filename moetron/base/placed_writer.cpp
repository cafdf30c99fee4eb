#include "moetron/base/placed_writer.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <new>
#include <unistd.h>
#include <utility>

#include "moetron/base/error.h"

namespace moetron {

std::span<std::byte> WriteBuffer::room(size_t bytes) {
  if (bytes > size_) {
    memory_.reset();
    size_ = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    memory_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, size_)));
    if (memory_ == nullptr) {
      size_ = 0;
      throw std::bad_alloc();
    }
  }
  return {memory_.get(), bytes};
}

PlacedWriter::PlacedWriter(const std::filesystem::path& path, std::optional<uint64_t> size,
                           std::string whose)
    : path_(path),
      whose_(std::move(whose)),
      fd_(::open(path.c_str(), O_WRONLY | O_CLOEXEC | (size ? O_CREAT | O_TRUNC : 0), 0644)) {
  check(fd_ >= 0);
  if (!size || ::ftruncate(fd_, static_cast<off_t>(*size)) == 0) {
    direct_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_DIRECT);
    return;
  }
  const int error = errno;
  ::close(fd_);
  errno = error;
  check(false);
}

PlacedWriter::~PlacedWriter() {
  if (direct_ >= 0) ::close(direct_);
  ::close(fd_);
}

void PlacedWriter::write(std::span<const std::byte> bytes, uint64_t place) {
  const size_t done = write_directly(bytes, place);
  bytes = bytes.subspan(done);
  place += done;
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(place));
    if (written < 0 && errno == EINTR) continue;
    check(written >= 0);
    bytes = bytes.subspan(static_cast<size_t>(written));
    place += static_cast<uint64_t>(written);
  }
}

size_t PlacedWriter::write_directly(std::span<const std::byte> bytes, uint64_t place) {
  constexpr size_t kAlignment = WriteBuffer::kAlignment;
  const auto address = reinterpret_cast<uintptr_t>(bytes.data());
  if (direct_ < 0 || address % kAlignment != 0 || place % kAlignment != 0) return 0;
  const size_t size = bytes.size() / kAlignment * kAlignment;
  size_t done = 0;
  while (done < size) {
    const ssize_t written =
        ::pwrite(direct_, bytes.data() + done, size - done, static_cast<off_t>(place + done));
    if (written < 0 && errno == EINTR) continue;
    // A disk whose pages are larger refuses; a short write may end between two of them.
    if (written < 0 && errno == EINVAL) break;
    check(written >= 0);
    done += static_cast<size_t>(written);
    if (done % kAlignment != 0) break;
  }
  return done;
}

void PlacedWriter::sync() {
  check(::fsync(fd_) == 0);
}

void PlacedWriter::check(bool done) const {
  const int error = errno;
  MT_CHECK_CONFIG(done, "cannot write ", path_.string(), ": ", std::strerror(error), whose_);
}

}  // namespace moetron
