// What a rank holds of the micro-batches under way, counted by the tensors that the operations of
// nn/ and moe/ keep where they run kernels on a GPU. Experts are evenly used.
#pragma once

#include "moetron/arch/stage_layers.h"
#include "moetron/run/run_spec.h"
#include "moetron/schedule/simulate.h"

namespace moetron {

// What the backward of one micro-batch keeps of a stage, in bytes: from the forward to the input
// gradients, and from those to the weight gradients where they come later. Of an expert the first
// product's output is kept and the activation computed again, and the second's output is not
// needed.
HeldOfChunk activation_bytes(const RunSpec& spec, const StageLayers& stage);

// What is needed beside that while a micro-batch passes through a stage, in bytes.
struct PassingBytes {
  double working = 0;     // gradients and results between operations, what is recomputed, logits
  double travelling = 0;  // tokens on their way to experts and back, messages of the pipeline
};
// `in_blocks`: a forward and a backward pass at the same time.
PassingBytes passing_bytes(const RunSpec& spec, const StageLayers& stage, bool in_blocks);

// Bytes of a parameter's or an activation's value: 2 but under dtype fp32.
double value_bytes(const RunSpec& spec);
// A number of 8 bits with its part of the scale that 128 of them share.
inline constexpr double kEightBitBytes = 1 + 4.0 / 128;

}  // namespace moetron
