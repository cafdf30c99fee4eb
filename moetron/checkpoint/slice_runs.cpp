#include "moetron/checkpoint/slice_runs.h"

#include "moetron/base/error.h"

namespace moetron {

SliceRuns::SliceRuns(const std::string& name, const BoxInMemory& box) {
  const std::span<const int64_t> sizes = box.sizes, strides = box.strides;
  const size_t num_dims = box.global_shape.size();
  MT_CHECK(sizes.size() == num_dims && box.begin.size() == num_dims, name,
           ": slice and global shape have different numbers of dimensions");
  const std::vector<int64_t> global_strides = dense_strides(box.global_shape);
  for (size_t dim = 0; dim < num_dims; ++dim) {
    const int64_t begin = box.begin[dim];
    MT_CHECK(begin >= 0 && begin + sizes[dim] <= box.global_shape[dim], name, ": elements ", begin,
             " to ", begin + sizes[dim], " of a dimension of ", box.global_shape[dim]);
    first_global_ += begin * global_strides[dim];
  }
  // A run grows over the trailing dimensions for as long as memory stays contiguous and all
  // dimensions inside are whole.
  size_t dim = num_dims;
  while (dim > 0) {
    const bool inner_is_whole = dim == num_dims || sizes[dim] == box.global_shape[dim];
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

SliceRuns::SliceRuns(const NamedSlice& slice)
    : SliceRuns(slice.name,
                {slice.global_shape, slice.begin, slice.view.sizes(), slice.view.strides()}) {}

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

std::vector<int64_t> dense_strides(std::span<const int64_t> sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t dim = sizes.size(); dim-- > 1;) strides[dim - 1] = strides[dim] * sizes[dim];
  return strides;
}

namespace {

// Bytes of the slice that lie in front of byte `end` of the file.
uint64_t bytes_before(const SliceRuns& runs, const TensorPlace& place, uint64_t end) {
  if (end <= place.offset) return 0;
  const uint64_t inside = end - place.offset;  // of the tensor
  const uint64_t run_bytes = static_cast<uint64_t>(runs.length()) * place.item_bytes;
  const int64_t index = runs.first_run_after(static_cast<int64_t>(inside / place.item_bytes));
  const uint64_t whole = static_cast<uint64_t>(index) * run_bytes;
  if (index == runs.count()) return whole;
  const uint64_t begin = static_cast<uint64_t>(runs.run(index).global) * place.item_bytes;
  return whole + (inside > begin ? inside - begin : 0);
}

}  // namespace

uint64_t bytes_inside(const SliceRuns& runs, const TensorPlace& place, const ByteRange& range) {
  return bytes_before(runs, place, range.end) - bytes_before(runs, place, range.begin);
}

}  // namespace moetron
