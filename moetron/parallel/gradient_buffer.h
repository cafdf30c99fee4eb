// The fp32 gradient accumulators of a rank in one flat buffer, so that reducing them over the
// data-parallel ranks is one collective.
#pragma once

#include <vector>

#include <ATen/core/Tensor.h>

namespace moetron {

class Communicator;
class Parameter;

class GradientBuffer {
 public:
  // Gives every trainable parameter (tied uses too) its place, in the order given.
  explicit GradientBuffer(const std::vector<Parameter*>& parameters);

  void zero();
  // Sums over the group, in rank order. Gradients are already divided by the global counts.
  void all_reduce(Communicator& data_parallel);

  int64_t num_elements() const { return flat_.numel(); }

 private:
  at::Tensor flat_;  // [elements] fp32
};

}  // namespace moetron
