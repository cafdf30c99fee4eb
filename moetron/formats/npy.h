// NumPy's .npy, version 1.0: little-endian, C order, one or two axes, integers. Used for the
// caches of dataset indices, so that Python tools can look at them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "moetron/base/file.h"

namespace moetron {

// T: int16_t, int32_t, uint32_t or int64_t. The file appears whole or not at all.
template <class T>
void write_npy(const std::filesystem::path& path, std::span<const T> values,
               const std::vector<int64_t>& shape);

// A mapped array. The constructor throws InputError, naming the file, unless the header is sound
// and the size matches it.
class NpyFile {
 public:
  explicit NpyFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<int64_t>& shape() const { return shape_; }
  size_t size() const;             // elements
  int64_t at(size_t index) const;  // widened, in C order
  // All elements in C order; InputError when the file holds another type.
  template <class T>
  std::span<const T> values() const;

 private:
  MappedFile file_;
  std::vector<int64_t> shape_;
  std::string type_;  // "<i4"
  size_t data_ = 0;   // byte at which the elements begin
};

}  // namespace moetron
