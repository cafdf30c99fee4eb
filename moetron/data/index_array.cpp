#include "moetron/data/index_array.h"

#include <type_traits>

#include "moetron/base/error.h"

namespace moetron {

int64_t IndexArray::size() const {
  return std::visit([](const auto& values) { return static_cast<int64_t>(values.size()); },
                    storage_);
}

int64_t IndexArray::operator[](int64_t index) const {
  MT_CHECK(index >= 0 && index < size(), "element ", index, " of an index of ", size());
  return std::visit(
      [index](const auto& values) {
        const auto place = static_cast<size_t>(index);
        if constexpr (std::is_same_v<std::decay_t<decltype(values)>, NpyFile>)
          return values.at(place);
        else
          return static_cast<int64_t>(values[place]);
      },
      storage_);
}

bool IndexArray::has_shape(const std::vector<int64_t>& shape) const {
  const NpyFile* file = std::get_if<NpyFile>(&storage_);
  return file != nullptr && file->shape() == shape;
}

void IndexArray::write(const std::filesystem::path& path, const std::vector<int64_t>& shape) const {
  std::visit(
      [&](const auto& values) {
        using Values = std::decay_t<decltype(values)>;
        if constexpr (std::is_same_v<Values, NpyFile>)
          throw InternalError("a mapped index is written already");
        else
          write_npy<typename Values::value_type>(path, values, shape);
      },
      storage_);
}

}  // namespace moetron
