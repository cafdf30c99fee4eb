#include "moetron/kernels/row_map.h"

#include <limits>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/kernels/device.h"
#ifdef MOETRON_CUDA
#include "moetron/kernels/cuda/row_map.h"
#endif

namespace moetron {

#ifdef MOETRON_CUDA
namespace {

void check_values(const at::Tensor& values, const at::Tensor& places) {
  MT_CHECK(places.is_cuda() && places.scalar_type() == at::kInt && places.is_contiguous(),
           "places of type ", places.scalar_type());
  MT_CHECK(values.is_cuda(), "values on ", values.device());
}

// values [any] fp32; places [any] int32 -> the first `count` of values[places]
at::Tensor pick(const at::Tensor& values, const at::Tensor& places, at::IntArrayRef sizes) {
  check_values(values, places);
  const at::Tensor in_a_row = values.contiguous();
  const at::Tensor picked = at::empty(sizes, values.options());
  MT_CHECK(picked.numel() <= places.numel(), picked.numel(), " values from ", places.numel(),
           " places");
  if (picked.numel() == 0) return picked;
  launch_gather_choices(in_a_row.const_data_ptr<float>(), places.const_data_ptr<int>(),
                        picked.mutable_data_ptr<float>(), picked.numel(), current_stream(values));
  return picked;
}

}  // namespace

bool has_row_map(const at::Tensor& experts) {
  return experts.is_cuda();
}

RowMap build_row_map(const at::Tensor& experts, int64_t first, int64_t count, int64_t alignment) {
  MT_CHECK(has_row_map(experts) && experts.dim() == 2 && count <= kMostLocalExperts &&
               experts.numel() <= std::numeric_limits<int>::max(),
           count, " local experts, choices of shape ", experts.sizes());
  const at::TensorOptions options = experts.options().dtype(at::kInt);
  const int64_t num_choices = experts.numel();
  const int64_t bound = num_choices + count * (alignment - 1);
  MT_CHECK(alignment >= 1 && bound <= std::numeric_limits<int>::max(), "rows aligned to ",
           alignment);
  // The kernel writes -1 behind the last row, but not between experts.
  RowMap map{
      .ends = at::empty({count}, options),
      .choice_of_row = alignment > 1 ? at::full({bound}, -1, options) : at::empty({bound}, options),
      .row_of_choice = at::empty(experts.sizes(), options)};
  if (num_choices == 0) {
    map.ends.zero_();
    return map;
  }
  const at::Tensor in_a_row = experts.contiguous();
  const at::Tensor counts = at::empty({row_map_chunks(num_choices), count}, options);
  launch_build_row_map({.experts = in_a_row.const_data_ptr<int64_t>(),
                        .first = first,
                        .num_local = static_cast<int>(count),
                        .num_choices = static_cast<int>(num_choices),
                        .alignment = static_cast<int>(alignment),
                        .counts = counts.mutable_data_ptr<int>(),
                        .ends = map.ends.mutable_data_ptr<int>(),
                        .choice_of_row = map.choice_of_row.mutable_data_ptr<int>(),
                        .row_of_choice = map.row_of_choice.mutable_data_ptr<int>()},
                       current_stream(experts));
  return map;
}

at::Tensor gather_rows(const at::Tensor& hidden, const at::Tensor& row_of_choice, int64_t rows,
                       bool zeros) {
  check_values(hidden, row_of_choice);
  MT_CHECK(hidden.size(0) == row_of_choice.size(0), hidden.size(0), " copies, choices of ",
           row_of_choice.size(0));
  const at::Tensor in_a_row = hidden.contiguous();
  const auto element_bytes = static_cast<int>(hidden.element_size());
  MT_CHECK(element_bytes == 1 || element_bytes == 2 || element_bytes == 4, "rows of type ",
           hidden.scalar_type());
  const at::Tensor gathered = zeros ? at::zeros({rows, hidden.size(1)}, hidden.options())
                                    : at::empty({rows, hidden.size(1)}, hidden.options());
  if (gathered.numel() == 0 || hidden.numel() == 0) return gathered;
  launch_gather_rows({.hidden = in_a_row.const_data_ptr(),
                      .row_of_choice = row_of_choice.const_data_ptr<int>(),
                      .rows = gathered.mutable_data_ptr(),
                      .copies = hidden.size(0),
                      .num_rows = rows,
                      .top_k = static_cast<int>(row_of_choice.size(1)),
                      .row_bytes = hidden.size(1) * element_bytes,
                      .element_bytes = element_bytes},
                     current_stream(hidden));
  return gathered;
}

at::Tensor sum_rows(const at::Tensor& rows, const at::Tensor& row_of_choice) {
  check_values(rows, row_of_choice);
  const bool is_bf16 = rows.scalar_type() == at::kBFloat16;
  MT_CHECK(is_bf16 || rows.scalar_type() == at::kFloat, "rows of type ", rows.scalar_type());
  const at::Tensor in_a_row = rows.contiguous();
  const at::Tensor sums = at::empty({row_of_choice.size(0), rows.size(1)}, rows.options());
  if (sums.numel() == 0) return sums;
  launch_sum_rows({.rows = in_a_row.const_data_ptr(),
                   .row_of_choice = row_of_choice.const_data_ptr<int>(),
                   .sums = sums.mutable_data_ptr(),
                   .copies = sums.size(0),
                   .top_k = static_cast<int>(row_of_choice.size(1)),
                   .size = sums.size(1),
                   .is_bf16 = is_bf16},
                  current_stream(rows));
  return sums;
}

at::Tensor gather_choices(const at::Tensor& values, const at::Tensor& choice_of_row, int64_t rows) {
  return pick(values, choice_of_row, {rows});
}

at::Tensor scatter_choices(const at::Tensor& values, const at::Tensor& row_of_choice) {
  return pick(values, row_of_choice, row_of_choice.sizes());
}
#else
namespace {

[[noreturn]] void refuse_row_maps() {
  throw InternalError("kernels of row maps in a build without CUDA");
}

}  // namespace

bool has_row_map(const at::Tensor&) {
  return false;
}

RowMap build_row_map(const at::Tensor&, int64_t, int64_t, int64_t) {
  refuse_row_maps();
}

at::Tensor gather_rows(const at::Tensor&, const at::Tensor&, int64_t, bool) {
  refuse_row_maps();
}

at::Tensor sum_rows(const at::Tensor&, const at::Tensor&) {
  refuse_row_maps();
}

at::Tensor gather_choices(const at::Tensor&, const at::Tensor&, int64_t) {
  refuse_row_maps();
}

at::Tensor scatter_choices(const at::Tensor&, const at::Tensor&) {
  refuse_row_maps();
}
#endif

}  // namespace moetron
