// Memory for large tables: zeros at first, which cost nothing before they are used, in large pages
// where there are any, since a table that is looked into at random places would otherwise cost a
// look-up of its page each time.
#pragma once

#include <cstddef>

namespace moetron {

class ZeroedMemory {
 public:
  explicit ZeroedMemory(size_t size);
  ZeroedMemory(ZeroedMemory&& other) noexcept;
  ZeroedMemory& operator=(ZeroedMemory&& other) noexcept;
  ~ZeroedMemory();

  void* data() const { return data_; }  // aligned to a page, to a large one if it is as large

 private:
  void* mapped_;
  size_t mapped_size_;
  void* data_;
};

}  // namespace moetron
