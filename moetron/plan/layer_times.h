// How long the parts of a layer, and the ends of a model, take one micro-batch on one rank.
#pragma once

#include "moetron/plan/hardware.h"
#include "moetron/run/run_spec.h"

namespace moetron {

// Seconds of a part's F, I and W.
struct PartTimes {
  double forward = 0;
  double backward_input = 0;
  double backward_weight = 0;
};

// attention -> dispatch -> experts -> combine; the shared expert needs neither of the two. In a
// dense layer its MLP stands for the experts, and nothing travels.
struct LayerTimes {
  PartTimes attention;  // with norms, residual and router
  PartTimes experts;    // with permutation
  PartTimes shared;
  double dispatch = 0;  // or combine, in both directions
  bool has_experts = true;
};

// Products take their FLOPs at the rate that kernels of their kind reach, or their bytes at that of
// the memory if that is longer; norms, rotations, activations and permutations the bytes they read
// and write. Weight gradients are added to fp32 accumulators.
LayerTimes layer_times(const RunSpec& spec, const Hardware& hardware, bool has_experts);

PartTimes embedding_times(const RunSpec& spec, const Hardware& hardware);
PartTimes head_times(const RunSpec& spec,
                     const Hardware& hardware);  // with norm and loss, MTP's too

}  // namespace moetron
