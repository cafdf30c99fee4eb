// The geometry of a slice: which stretches of the global, row-major tensor it holds, and where each
// lies in memory. Reading and writing both walk these runs.
#pragma once

#include <cstdint>
#include <vector>

#include "moetron/autograd/parameter.h"

namespace moetron {

// A stretch of elements that is contiguous in the global tensor and in memory.
struct SliceRun {
  int64_t global = 0;  // first element in the global tensor, row-major
  int64_t memory = 0;  // first element behind the view's data pointer
};

class SliceRuns {
 public:
  // Throws InternalError where the slice does not lie inside its global shape.
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

}  // namespace moetron
