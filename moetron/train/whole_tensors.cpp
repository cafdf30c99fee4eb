#include "moetron/train/whole_tensors.h"

#include <cmath>

#include <ATen/ATen.h>

#include "moetron/base/error.h"

namespace moetron {

void WholeTensors::add(const std::vector<NamedSlice>& slices) {
  const std::lock_guard lock(mutex_);
  for (const NamedSlice& slice : slices) {
    at::Tensor& whole = tensors_[slice.name];
    if (!whole.defined()) whole = at::full(slice.global_shape, NAN);
    at::Tensor place = whole;
    for (int64_t dim = 0; dim < whole.dim(); ++dim) {
      place = place.narrow(dim, slice.begin[dim], slice.view.size(dim));
    }
    const at::Tensor known = place.isnan().logical_not();
    const at::Tensor value = slice.view.to(at::kFloat);
    MT_CHECK(at::equal(place.masked_select(known), value.masked_select(known)), slice.name,
             ": replicas differ");
    place.copy_(value);
  }
}

TensorsByName WholeTensors::take() {
  for (const auto& [name, tensor] : tensors_) {
    MT_CHECK(!tensor.isnan().any().item<bool>(), name, " is not whole");
  }
  return std::move(tensors_);
}

double norm_of(const TensorsByName& tensors) {
  double squares = 0;
  for (const auto& [name, tensor] : tensors) squares += std::pow(tensor.norm().item<double>(), 2);
  return std::sqrt(squares);
}

double relative_difference(const at::Tensor& found, const at::Tensor& wanted, double scale) {
  const double difference = (found - wanted).norm().item<double>();
  return difference == 0 ? 0 : difference / (wanted.norm().item<double>() + scale / 4);
}

}  // namespace moetron
