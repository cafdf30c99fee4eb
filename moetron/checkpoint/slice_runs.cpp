#include "moetron/checkpoint/slice_runs.h"

#include "moetron/base/error.h"

namespace moetron {

SliceRuns::SliceRuns(const NamedSlice& slice) {
  const at::IntArrayRef sizes = slice.view.sizes();
  const at::IntArrayRef strides = slice.view.strides();
  const size_t num_dims = slice.global_shape.size();
  MT_CHECK(sizes.size() == num_dims && slice.begin.size() == num_dims, slice.name,
           ": slice and global shape have different numbers of dimensions");
  std::vector<int64_t> global_strides(num_dims, 1);
  for (size_t dim = num_dims; dim-- > 1;) {
    global_strides[dim - 1] = global_strides[dim] * slice.global_shape[dim];
  }
  for (size_t dim = 0; dim < num_dims; ++dim) {
    const int64_t begin = slice.begin[dim];
    MT_CHECK(begin >= 0 && begin + sizes[dim] <= slice.global_shape[dim], slice.name, ": elements ",
             begin, " to ", begin + sizes[dim], " of a dimension of ", slice.global_shape[dim]);
    first_global_ += begin * global_strides[dim];
  }
  // A run grows over the trailing dimensions for as long as memory stays contiguous and all
  // dimensions inside are whole.
  size_t dim = num_dims;
  while (dim > 0) {
    const bool inner_is_whole = dim == num_dims || sizes[dim] == slice.global_shape[dim];
    const bool is_dense = strides[dim - 1] == length_ || sizes[dim - 1] == 1;
    if (!inner_is_whole || !is_dense) break;
    length_ *= sizes[--dim];
  }
  for (size_t outer = 0; outer < dim; ++outer) {
    outer_sizes_.push_back(sizes[outer]);
    memory_strides_.push_back(strides[outer]);
    global_strides_.push_back(global_strides[outer]);
    count_ *= sizes[outer];
  }
  if (length_ == 0) count_ = 0;
}

SliceRun SliceRuns::run(int64_t index) const {
  SliceRun run{first_global_, 0};
  for (size_t dim = outer_sizes_.size(); dim-- > 0;) {
    const int64_t place = index % outer_sizes_[dim];
    index /= outer_sizes_[dim];
    run.global += place * global_strides_[dim];
    run.memory += place * memory_strides_[dim];
  }
  return run;
}

int64_t SliceRuns::first_run_after(int64_t element) const {
  int64_t low = 0, high = count_;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (run(middle).global + length_ > element) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

}  // namespace moetron
