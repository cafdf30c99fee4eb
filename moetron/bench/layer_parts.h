// How long the parts of a chunk's layers take on this device: what the plan computes from rates,
// measured.
#pragma once

#include <cstdint>

#include "moetron/pipeline/chunk.h"
#include "moetron/plan/layer_times.h"

namespace moetron {

// Means over the chunk's layers, which have experts, of medians of F, I and W of attention, experts
// (with permutation and the sum behind combine) and shared expert; no dispatch time. hidden and
// d_output [tokens, hidden]. One more iteration comes first; the weights' gradients are added to
// their accumulators.
LayerTimes measure_layers(Chunk& chunk, const MicroBatch& micro_batch, const at::Tensor& hidden,
                          const at::Tensor& d_output, int64_t iterations);

}  // namespace moetron
