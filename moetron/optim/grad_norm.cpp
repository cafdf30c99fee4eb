#include "moetron/optim/grad_norm.h"

#include <algorithm>
#include <cmath>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/optim/fused_loops.h"

namespace moetron {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // elements a task; fixed, so that sums are

// The whole tensor's sum of squares: blocks in parallel, added in order.
double sum_of_blocks(const at::Tensor& values) {
  const float* data = values.const_data_ptr<float>();
  const int64_t count = values.numel();
  const int64_t num_blocks = (count + kBlock - 1) / kBlock;
  std::vector<double> partial(static_cast<size_t>(num_blocks));
  at::parallel_for(0, num_blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kBlock;
      partial[block] = sum_of_squares(data + begin, std::min(kBlock, count - begin));
    }
  });
  double sum = 0;
  for (const double value : partial) sum += value;
  return sum;
}

}  // namespace

GradNorm global_grad_norm(const std::vector<Parameter*>& parameters) {
  std::vector<NamedSlice> slices;
  for (Parameter* parameter : parameters) {
    if (parameter->is_tied() || !parameter->settings().trainable || !parameter->has_grad())
      continue;
    for (NamedSlice& slice : parameter->slices(parameter->grad())) slices.push_back(slice);
  }
  std::sort(slices.begin(), slices.end(), [](const NamedSlice& a, const NamedSlice& b) {
    return a.name != b.name ? a.name < b.name : a.begin < b.begin;
  });
  GradNorm result;
  double total = 0;
  for (const NamedSlice& slice : slices) {
    // Pieces that are not contiguous in their storage are gathered, so that order is the tensor's.
    const double sum = sum_of_blocks(slice.view.contiguous());
    if (!std::isfinite(sum) && result.non_finite.empty()) result.non_finite = slice.name;
    total += sum;
  }
  result.norm = std::sqrt(total);
  return result;
}

double clip_coefficient(double norm, double max_norm) {
  MT_CHECK(max_norm >= 0, "a negative clip-grad: ", max_norm);
  if (max_norm == 0) return 1;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace moetron
