// How long the parts of one layer take on this device: what the plan computes from rates, measured.
#pragma once

#include <cstdint>

#include "moetron/pipeline/layer.h"
#include "moetron/plan/layer_times.h"

namespace moetron {

// Medians of F, I and W of attention, experts (with permutation and the sum behind combine) and
// shared expert; no dispatch time. hidden and d_output [tokens, hidden]. One more iteration comes
// first; the weights' gradients are added to their accumulators. `layer` has experts.
LayerTimes measure_layer(Layer& layer, const MicroBatch& micro_batch, const at::Tensor& hidden,
                         const at::Tensor& d_output, int64_t iterations);

}  // namespace moetron
