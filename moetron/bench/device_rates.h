// What one device reaches in the operations that a plan counts: measured, for a hardware file.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "moetron/arch/model_config.h"
#include "moetron/bench/kernel_cases.h"
#include "moetron/plan/hardware.h"

namespace moetron {

// The work of all cases together over the time of all together, a second; FLOPs or bytes.
struct MeasuredRate {
  double rate = 0;
  double least = 0, most = 0;  // of a case
  double spread = 0;           // of a case's repetitions, (most - least) / median; the mean of all
  int64_t num_cases = 0;
};

// The sizes at which a device is measured: layers of the published models, on a CPU with widths,
// heads and tokens divided, for else a single product takes seconds.
struct CalibrationShapes {
  std::vector<ModelConfig> models;  // Qwen3-235B, DeepSeek-V3, of one layer
  int64_t tokens = 0;               // one sequence
  int64_t divided_by = 1;
};
CalibrationShapes calibration_shapes(int64_t divided_by);

struct DeviceRates {
  at::ScalarType dtype = at::kBFloat16;  // fp32 on a CPU, as a run has it there by default
  MeasuredRate matrix;
  double other_matrix_rate = 0;  // of a CPU, in bf16; else 0
  MeasuredRate grouped;
  MeasuredRate memory;
  double copied = 0;  // bytes/s read and written by a large copy within the memory
  struct Attention {
    int64_t head_dim = 0;
    MeasuredRate forward, backward;
  };
  std::vector<Attention> attention;
  MeasuredRate adam;     // parameters/s
  double host_copy = 0;  // bytes/s each way, both at once, through pinned host memory; of a GPU
};

// `seconds`: of each case, half of which counts. Says in the log what it is at.
DeviceRates measure_device(c10::Device device, const CalibrationShapes& shapes, double seconds);

// What the parts of a layer take beside what a plan makes of the rates.
struct LayerCheck {
  double measured = 0;         // seconds of F, I and W of the models' layers, in all
  double planned = 0;          // the same from `rates`
  double launch_overhead = 0;  // seconds of a pass of a part of hardly any tokens; of a CPU
  double slowdown = 1;         // of all compute, the launches left out
};
// rates: with compute_slowdown 1 and launch_overhead 0. A GPU runs behind its launches, so that
// these cost nothing.
LayerCheck check_layers(c10::Device device, const CalibrationShapes& shapes, double seconds,
                        const Hardware& rates);

}  // namespace moetron
