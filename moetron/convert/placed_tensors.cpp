#include "moetron/convert/placed_tensors.h"

#include <algorithm>
#include <cstring>

#include "moetron/base/file.h"
#include "moetron/convert/megatron_tensors.h"

namespace moetron {
namespace {

// The elements of a tensor that are asked for, and where they go.
struct AskedElements {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t width = 1;  // elements of a row of the tensor
  size_t element_bytes = 1;
  std::span<std::byte> bytes;
};

// Copies what is asked for of a row's columns [column, column + columns), which lie in `source`.
void copy_row(const AskedElements& asked, uint64_t row, uint64_t column, uint64_t columns,
              const std::byte* source) {
  const uint64_t row_begin = row * asked.width + column;
  const uint64_t from = std::max(row_begin, asked.begin);
  const uint64_t to = std::min(row_begin + columns, asked.end);
  if (from >= to) return;
  std::memcpy(&asked.bytes[(from - asked.begin) * asked.element_bytes],
              source + (from - row_begin) * asked.element_bytes, (to - from) * asked.element_bytes);
}

// Rows [first, last) of a part: a read may begin and end within one.
void read_rows(const FileReader& file, const TensorPart& part, uint64_t first, uint64_t last,
               const AskedElements& asked) {
  const uint64_t row_bytes = part.columns * asked.element_bytes;
  std::vector<std::byte> rows((last - first) * row_bytes);
  file.read(part.offset + (first - part.row) * row_bytes, rows);
  for (uint64_t row = first; row < last; ++row)
    copy_row(asked, row, part.column, part.columns, &rows[(row - first) * row_bytes]);
}

// The same of a part whose columns lie in the file: of each, the stretch of these rows.
void read_columns(const FileReader& file, const TensorPart& part, uint64_t first, uint64_t last,
                  const AskedElements& asked) {
  const size_t size = asked.element_bytes;
  const uint64_t count = last - first;
  std::vector<std::byte> columns(count * part.columns * size);
  for (uint64_t column = 0; column < part.columns; ++column)
    file.read(part.offset + (column * part.stride + first - part.row) * size,
              std::span(columns).subspan(column * count * size, count * size));
  std::vector<std::byte> row_of(part.columns * size);
  for (uint64_t row = 0; row < count; ++row) {
    for (uint64_t column = 0; column < part.columns; ++column)
      std::memcpy(&row_of[column * size], &columns[(column * count + row) * size], size);
    copy_row(asked, first + row, part.column, part.columns, row_of.data());
  }
}

}  // namespace

void PlacedTensors::read(size_t index, uint64_t begin, uint64_t count,
                         std::span<std::byte> bytes) const {
  if (count == 0) return;
  const SafetensorsTensor& tensor = tensors_[index];
  const AskedElements asked{.begin = begin,
                            .end = begin + count,
                            .width = static_cast<uint64_t>(num_columns(tensor.shape)),
                            .element_bytes = static_cast<size_t>(dtype_bits(tensor.dtype)) / 8,
                            .bytes = bytes};
  for (const TensorPart& part : parts_[index]) {
    const uint64_t first = std::max(part.row, begin / asked.width);
    const uint64_t last =
        std::min(part.row + part.rows, (asked.end + asked.width - 1) / asked.width);
    if (first >= last) continue;
    const FileReader file(files_[part.file]);
    part.stride > 0 ? read_columns(file, part, first, last, asked)
                    : read_rows(file, part, first, last, asked);
  }
}

}  // namespace moetron
