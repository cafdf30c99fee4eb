// The geometry of a slice: which stretches of the global, row-major tensor it holds, and where each
// lies in memory. Reading and writing both walk these runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "moetron/autograd/parameter.h"

namespace moetron {

// A stretch of elements that is contiguous in the global tensor and in memory.
struct SliceRun {
  int64_t global = 0;  // first element in the global tensor, row-major
  int64_t memory = 0;  // first element behind the view's data pointer
};

// A box of a global tensor, and the strides with which memory holds it.
struct BoxInMemory {
  std::span<const int64_t> global_shape, begin, sizes, strides;
};

class SliceRuns {
 public:
  // Throws InternalError, which names the tensor, where the box does not lie inside its global
  // shape.
  SliceRuns(const std::string& name, const BoxInMemory& box);
  explicit SliceRuns(const NamedSlice& slice);

  int64_t count() const { return count_; }    // runs, in rising order of `global`
  int64_t length() const { return length_; }  // elements of each
  SliceRun run(int64_t index) const;
  // The first run that ends after global element `element`; count() if none does.
  int64_t first_run_after(int64_t element) const;

 private:
  std::vector<int64_t> outer_sizes_;     // of the dimensions in front of a run
  std::vector<int64_t> memory_strides_;  // of the same dimensions
  std::vector<int64_t> global_strides_;
  int64_t first_global_ = 0;
  int64_t count_ = 1;
  int64_t length_ = 1;
};

// Row-major strides of a dense box.
std::vector<int64_t> dense_strides(std::span<const int64_t> sizes);

// Bytes [begin, end) of a file.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Where a tensor lies in a file.
struct TensorPlace {
  uint64_t offset = 0;
  uint64_t item_bytes = 0;
};

// Calls visit(byte of the file, byte behind the view's data pointer, number of bytes) for every
// stretch of a slice inside `range`, in rising order of the first. Elements may be cut at both ends
// of the range.
template <class Visit>
void for_each_stretch(const SliceRuns& runs, const TensorPlace& place, const ByteRange& range,
                      const Visit& visit) {
  const uint64_t run_bytes = static_cast<uint64_t>(runs.length()) * place.item_bytes;
  const uint64_t skipped = range.begin > place.offset ? range.begin - place.offset : 0;
  int64_t index = runs.first_run_after(static_cast<int64_t>(skipped / place.item_bytes));
  for (; index < runs.count(); ++index) {
    const SliceRun run = runs.run(index);
    const uint64_t begin = place.offset + static_cast<uint64_t>(run.global) * place.item_bytes;
    if (begin >= range.end) return;
    const uint64_t first = std::max(begin, range.begin);
    const uint64_t last = std::min(begin + run_bytes, range.end);
    visit(first, static_cast<uint64_t>(run.memory) * place.item_bytes + (first - begin),
          last - first);
  }
}

// The bytes that the stretches of a slice inside `range` add up to.
uint64_t bytes_inside(const SliceRuns& runs, const TensorPlace& place, const ByteRange& range);

}  // namespace moetron
