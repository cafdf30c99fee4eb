#include "moetron/optim/parameter_counts.h"

#include <cmath>

#include <ATen/ATen.h>

#include "moetron/comm/communicator.h"
#include "moetron/parallel/mesh.h"

namespace moetron {

ParameterCounts::ParameterCounts(const std::vector<OwnedStretch>& owned, Mesh& mesh,
                                 bool distributed)
    : world_(mesh.world()) {
  for (const OwnedStretch& stretch : owned) {
    if (distributed || mesh.is_first_replica(stretch.parameter->settings().replicas))
      counted_.push_back(stretch);
  }
}

double ParameterCounts::norm_of_values() {
  const at::Tensor sum = at::zeros({1}, at::kDouble);
  for (const OwnedStretch& stretch : counted_) {
    const at::Tensor values = stretch.value.to(at::kDouble);
    sum.add_(at::dot(values, values).cpu());
  }
  world_.all_reduce(sum).wait();
  return std::sqrt(sum.item<double>());
}

int64_t ParameterCounts::zeros_in_grad() {
  const at::Tensor zeros = at::zeros({1}, at::kLong);
  for (const OwnedStretch& stretch : counted_) {
    zeros.add_(stretch.grad.numel() - at::count_nonzero(stretch.grad).item<int64_t>());
  }
  world_.all_reduce(zeros).wait();
  return zeros.item<int64_t>();
}

}  // namespace moetron
