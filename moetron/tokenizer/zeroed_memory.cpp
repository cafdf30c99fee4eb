#include "moetron/tokenizer/zeroed_memory.h"

#include <memory>
#include <new>
#include <sys/mman.h>
#include <utility>

namespace moetron {
namespace {

constexpr size_t kLargePage = 2 << 20;

}  // namespace

ZeroedMemory::ZeroedMemory(size_t size) {
  const bool is_large = size >= kLargePage;
  mapped_size_ = is_large ? size + kLargePage : size;
  mapped_ = mmap(nullptr, mapped_size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED) throw std::bad_alloc();
  data_ = mapped_;
  if (!is_large) return;
  size_t room = mapped_size_;
  std::align(kLargePage, size, data_, room);
  madvise(data_, size, MADV_HUGEPAGE);  // only asks
}

ZeroedMemory::ZeroedMemory(ZeroedMemory&& other) noexcept
    : mapped_(std::exchange(other.mapped_, nullptr)),
      mapped_size_(other.mapped_size_),
      data_(std::exchange(other.data_, nullptr)) {}

ZeroedMemory& ZeroedMemory::operator=(ZeroedMemory&& other) noexcept {
  std::swap(mapped_, other.mapped_);
  std::swap(mapped_size_, other.mapped_size_);
  std::swap(data_, other.data_);
  return *this;
}

ZeroedMemory::~ZeroedMemory() {
  if (mapped_ != nullptr) munmap(mapped_, mapped_size_);
}

}  // namespace moetron
