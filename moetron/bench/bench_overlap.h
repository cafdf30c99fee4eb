// `moetron bench overlap`: how much expert communication the block of a forward and a backward
// (DualPipeV) hides behind compute, on one GPU.
#pragma once

#include <cstdint>
#include <string>

#include <c10/core/Device.h>

#include "moetron/arch/model_config.h"
#include "moetron/config/options.h"
#include "moetron/plan/layer_times.h"

namespace moetron {

// Bytes that a rank sends over the network in a dispatch or combine of bf16 rows, where `ep` ranks
// hold experts like those of the slice (so many times its experts in all, evenly used):
// plan/dispatch_time.h. Under kPerNode nodes have 8 ranks, and what travels within them is left
// out; else every rank is a node.
int64_t exchange_bytes(const ModelConfig& slice, int64_t tokens, int64_t ep, DispatchScheme scheme);

// Seconds of F and B of two micro-batches through a chunk.
struct OverlapTimes {
  double compute = 0;        // F, then B, without communication
  double communication = 0;  // of both, alone
  double plain = 0;          // F, then B, with communication
  double block = 0;          // together

  double speed_up() const { return plain / block; }
  // Of the communication: what does not lengthen the time (plain or block) beyond the compute's.
  // Negative where compute loses more beside it than it hides.
  double hidden(double seconds) const { return 1 - (seconds - compute) / communication; }
  // What no order can exceed.
  double most_hidden() const;
};

// What plan/step_program.h makes of `num_layers` such layers.
OverlapTimes planned_times(const LayerTimes& layer, int64_t num_layers);

// Measures decoder layers of the slice and returns lines for people. Reads of the options: model
// (layers), training (sizes), bench, runtime (seed). Throws ConfigError where `device` is no GPU.
std::string bench_overlap(const ModelConfig& slice, const std::string& name, const Options& options,
                          c10::Device device);

}  // namespace moetron
