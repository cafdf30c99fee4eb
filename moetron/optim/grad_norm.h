// The global gradient norm and the clip coefficient that follows from it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "moetron/kernels/grad_norm.h"
#include "moetron/parallel/gradient_buckets.h"

namespace moetron {

class Communicator;

struct GradNorm {
  double norm = 0;         // L2 over all trained parameters of all ranks
  std::string non_finite;  // first tensor in name order with an infinity or NaN; empty: none
};

// Counts every element of the model once, whatever the layout, and gives every rank the same bits.
//
// Squares are summed in fp64 with what rounding takes from the sums (CarriedSum), a partial sum per
// slice of a named tensor (Hugging Face name); the partial sums of all ranks are added in name
// order, those of one tensor in the order of its elements. On CPUs the norm is so the exact one,
// rounded once: neither fusing, storage order, thread count nor the division of a tensor among
// ranks changes a bit. On GPUs the division does.
class GradNormMeter {
 public:
  // Collective over the mesh, which must outlive the meter. `owned` is that of GradientBuckets,
  // whose accumulators the meter keeps, and `distributed` its setting: without it, replicas own the
  // same, and the first of them counts.
  GradNormMeter(const std::vector<OwnedStretch>& owned, Mesh& mesh, bool distributed);

  // Of the accumulators as they are: after GradientBuckets::reduce(). Collective over the mesh.
  GradNorm measure();

 private:
  struct Term {
    std::string name;
    int64_t begin = 0;  // first element in the flattened tensor of that name
    int64_t place = 0;  // in the gathered partial sums
  };

  Communicator& world_;
  std::vector<at::Tensor> grads_;  // this rank's slices, each contiguous fp32
  std::optional<SumsOfSquares> on_gpu_;
  std::vector<Term> terms_;  // of all ranks, in name order
  int64_t most_slices_ = 0;  // of any rank
};

// What gradients are multiplied by so that their norm does not exceed `max_norm`, as Megatron has
// it: min(1, max_norm / (norm + 1e-6)). A `max_norm` of 0 turns clipping off.
double clip_coefficient(double norm, double max_norm);

}  // namespace moetron
