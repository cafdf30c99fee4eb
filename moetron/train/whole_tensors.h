// Whole tensors from what the ranks of a layout hold of them, and how far those of two layouts are
// apart.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/autograd/parameter.h"
#include "moetron/kernels/rounding.h"

namespace moetron {

using TensorsByName = std::map<std::string, at::Tensor>;

// Slices of rank threads, put together.
class WholeTensors {
 public:
  // May be called by several threads. The values are copied, as fp32. Throws InternalError where
  // another rank has brought other bits of the same elements.
  void add(const std::vector<NamedSlice>& slices);
  // Throws InternalError where the ranks together do not have all of a tensor.
  TensorsByName take();

 private:
  std::mutex mutex_;
  TensorsByName tensors_;
};

// The norm of all of them together.
double norm_of(const TensorsByName& tensors);

// ||found - wanted|| over ||wanted|| + scale / 4. What is added up to make a gradient has the size
// of all gradients, their norm, even where the sum is zero: that is its `scale`; of a parameter it
// is 0. 0 where nothing differs.
double relative_difference(const at::Tensor& found, const at::Tensor& wanted, double scale);

// What rounding does to it on any processor, in any layout.
inline constexpr double kLayoutBound = 4 * kRounding;

}  // namespace moetron
