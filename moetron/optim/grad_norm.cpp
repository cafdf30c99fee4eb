#include "moetron/optim/grad_norm.h"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <tuple>

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "moetron/base/error.h"
#include "moetron/comm/communicator.h"
#include "moetron/comm/gather_texts.h"
#include "moetron/optim/fused_loops.h"
#include "moetron/parallel/mesh.h"

namespace moetron {
namespace {

constexpr int64_t kBlock = int64_t{1} << 16;  // elements a task; fixed, so that sums are

// The whole slice's sum of squares: blocks in parallel, added in order.
CarriedSum sum_of_blocks(const at::Tensor& values) {
  const float* data = values.const_data_ptr<float>();
  const int64_t count = values.numel();
  const int64_t num_blocks = (count + kBlock - 1) / kBlock;
  std::vector<CarriedSum> partial(static_cast<size_t>(num_blocks));
  at::parallel_for(0, num_blocks, 1, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * kBlock;
      partial[block] = sum_of_squares(data + begin, std::min(kBlock, count - begin));
    }
  });
  CarriedSum sum;
  for (const CarriedSum& value : partial) sum.add(value);
  return sum;
}

int64_t first_element(const NamedSlice& slice) {
  int64_t element = 0;
  for (size_t i = 0; i < slice.begin.size(); ++i) {
    element = element * slice.global_shape[i] + slice.begin[i];
  }
  return element;
}

}  // namespace

GradNormMeter::GradNormMeter(const std::vector<OwnedStretch>& owned, Mesh& mesh, bool distributed)
    : world_(mesh.world()) {
  std::string listed;  // "NAME BEGIN\n" of each slice
  for (const OwnedStretch& stretch : owned) {
    const Parameter& parameter = *stretch.parameter;
    if (!distributed && !mesh.is_first_replica(parameter.settings().replicas)) continue;
    for (NamedSlice& slice : parameter.slices_of_stretch(stretch.grad, stretch.begin)) {
      listed += concat(slice.name, ' ', first_element(slice), '\n');
      grads_.push_back(std::move(slice.view));
    }
  }
  if (!grads_.empty() && !grads_.front().is_cpu()) on_gpu_.emplace(grads_);
  std::vector<std::vector<Term>> by_rank;
  for (const std::string& text : gather_texts(world_, listed)) {
    std::istringstream lines(text);
    std::vector<Term>& terms = by_rank.emplace_back();
    for (Term term; lines >> term.name >> term.begin;) terms.push_back(term);
    most_slices_ = std::max(most_slices_, static_cast<int64_t>(terms.size()));
  }
  for (size_t rank = 0; rank < by_rank.size(); ++rank) {
    int64_t place = static_cast<int64_t>(rank) * most_slices_;
    for (Term& term : by_rank[rank]) {
      term.place = place++;
      terms_.push_back(std::move(term));
    }
  }
  std::stable_sort(terms_.begin(), terms_.end(), [](const Term& a, const Term& b) {
    return std::tie(a.name, a.begin) < std::tie(b.name, b.begin);
  });
}

GradNorm GradNormMeter::measure() {
  // [slices, 2]: sums and what rounding took from them, which is not known of a GPU's.
  const at::Tensor mine = at::zeros({most_slices_, 2}, at::kDouble);
  if (on_gpu_) {  // the one place where the host waits for the GPU
    mine.select(1, 0).narrow(0, 0, static_cast<int64_t>(grads_.size())).copy_(on_gpu_->compute());
  } else {
    double* sum = mine.mutable_data_ptr<double>();
    for (const at::Tensor& grad : grads_) {
      const CarriedSum of_slice = sum_of_blocks(grad);
      *sum++ = of_slice.sum;
      *sum++ = of_slice.rest;
    }
  }
  const at::Tensor all = at::empty({world_.size() * most_slices_, 2}, at::kDouble);
  world_.all_gather(all, mine).wait();
  const double* partial = all.const_data_ptr<double>();
  GradNorm result;
  CarriedSum total;
  for (const Term& term : terms_) {
    const CarriedSum sum{partial[2 * term.place], partial[2 * term.place + 1]};
    if (!std::isfinite(sum.sum) && result.non_finite.empty()) result.non_finite = term.name;
    total.add(sum);
  }
  result.norm = std::sqrt(total.sum + total.rest);
  return result;
}

double clip_coefficient(double norm, double max_norm) {
  MT_CHECK(max_norm >= 0, "a negative clip-grad: ", max_norm);
  if (max_norm == 0) return 1;
  return std::min(1.0, max_norm / (norm + 1e-6));
}

}  // namespace moetron
