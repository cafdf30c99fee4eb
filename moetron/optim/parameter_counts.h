// Figures of all parameters of a run that are only looked at.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/parallel/gradient_buckets.h"

namespace moetron {

class Communicator;
class Mesh;

// Counts every element of the model once, whatever the layout, and gives every rank the same.
class ParameterCounts {
 public:
  // `owned` is that of GradientBuckets and `distributed` its setting: without it replicas own the
  // same, and the first of them counts. The mesh must outlive the object.
  ParameterCounts(const std::vector<OwnedStretch>& owned, Mesh& mesh, bool distributed);

  // L2, of the values as they are. Collective over the mesh.
  double norm_of_values();
  // Of the accumulators as they are: after GradientBuckets::reduce(). Collective over the mesh.
  int64_t zeros_in_grad();

 private:
  Communicator& world_;
  std::vector<OwnedStretch> counted_;
};

}  // namespace moetron
