// A long array of integers of either of two widths, in memory or mapped from a .npy file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <utility>
#include <variant>
#include <vector>

#include "moetron/formats/npy.h"

namespace moetron {

class IndexArray {
 public:
  IndexArray() = default;
  template <class T>
  explicit IndexArray(std::vector<T> values) : storage_(std::move(values)) {}
  explicit IndexArray(NpyFile file) : storage_(std::move(file)) {}

  int64_t size() const;                                     // elements
  int64_t operator[](int64_t index) const;                  // 0 <= index < size()
  bool has_shape(const std::vector<int64_t>& shape) const;  // mapped arrays only
  void write(const std::filesystem::path& path, const std::vector<int64_t>& shape) const;

 private:
  std::variant<std::vector<int32_t>, std::vector<uint32_t>, std::vector<int64_t>, NpyFile> storage_;
};

}  // namespace moetron
