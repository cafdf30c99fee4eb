// moetron bench step: how fast a few layers train on one device. The same layers, sizes and FLOPs
// as the PyTorch scripts that it is measured beside.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <c10/core/Device.h>

#include "moetron/arch/model_config.h"
#include "moetron/bench/kernel_times.h"
#include "moetron/config/options.h"

namespace moetron {

// What a GPU drew on average, what it may draw, and its clock at the end: near the limit the clock
// falls, and time is energy over power.
struct GpuPower {
  double watts = 0;
  double limit = 0;  // watts
  double megahertz = 0;
};

// Forward and backward of one micro-batch, gradients accumulated in fp32.
struct MicroBatchSpeed {
  double first_ms = 0;  // of a step: its gradients overwrite the accumulators
  double next_ms = 0;   // its gradients are added to them
  int64_t peak_bytes = 0;
  double loss = 0;                // mean over the labelled tokens, of the last micro-batch
  std::optional<GpuPower> power;  // over the measured iterations, where the driver tells
};

// The whole step of one micro-batch: gradient norm, clipping and AdamW behind it.
struct OptimizerSpeed {
  double step_ms = 0;
  double norm_ms = 0;  // the host waits for it
  double update_ms = 0;
  double norm_bytes = 0;    // that must be read
  double update_bytes = 0;  // that must be read and written
  // Bytes a second of a copy within a GPU, see copy_bandwidth(). Of a CPU none: its copy also reads
  // the lines that it overwrites, so an update in place is faster.
  std::optional<double> copy_bandwidth;
  int64_t peak_bytes = 0;
};

struct StepReport {
  std::string device;
  std::string dtype;  // "bf16" or "fp32"
  int64_t num_layers = 0;
  int64_t num_parameters = 0;
  int64_t micro_batch_size = 0;
  int64_t seq_length = 0;
  double flops = 0;  // of a micro-batch, see slice_flops()
  MicroBatchSpeed micro_batch;
  std::optional<OptimizerSpeed> optimizer;
  std::optional<KernelTimes> kernels;  // of a first micro-batch, or of a step; on a GPU only

  int64_t num_tokens() const { return micro_batch_size * seq_length; }
  double tflops_per_second(double ms) const { return flops / ms / 1e9; }
  double tokens_per_second(double ms) const { return static_cast<double>(num_tokens()) / ms * 1e3; }
};

// Random weights and tokens. Reads of the options: training (sequence length and micro-batch size,
// above 0; dtype), memory, runtime (seed), bench, report (trace).
StepReport measure_step(const ModelConfig& config, const Options& options, c10::Device device);

// Lines for people, the last in the form of torch_slice.py's, which begins with `name`.
std::string describe(const StepReport& report, const std::string& name, int64_t num_kernels);
std::string to_json_text(const StepReport& report, const std::string& name, int64_t num_kernels);

}  // namespace moetron
