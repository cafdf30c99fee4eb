// --profile: what every rank of a pipeline did when in a step, as a picture and as a Chrome trace;
// and what its GPU did.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <c10/core/Device.h>

#include "moetron/measure/kernel_profile.h"
#include "moetron/pipeline/pipeline_trace.h"
#include "moetron/run/run_spec.h"
#include "moetron/schedule/schedule.h"

namespace moetron {

class Mesh;

class StepProfile {
 public:
  // Records on the ranks of rank 0's pipeline, and nothing without a folder to save to. The mesh
  // outlives the object.
  StepProfile(const LogSpec& spec, Mesh& mesh, c10::Device device);

  // Where the step's record goes; null where it is not recorded. Collective over the pipeline.
  PipelineTrace* begin(int64_t step);
  // Whether the GPU is being recorded: no MemoryMeter may live meanwhile.
  bool records_gpu() const { return gpu_.has_value(); }
  // Behind the step: writes FOLDER/step_N.svg (or .png) and FOLDER/step_N.json, if it was recorded,
  // and every rank with a GPU FOLDER/step_N_gpu_R.json: operators, kernels by stream, memory. The
  // picture and the trace show the same step simulated, too (schedule/measured_step.h). Returns a
  // line on both for rank 0 to say, else nothing. A missing gnuplot is a warning. Collective over
  // the pipeline.
  std::string end(int64_t step, const Schedule& schedule);

 private:
  bool records(int64_t step) const;

  std::filesystem::path folder_;
  std::string ending_;            // of a picture's name
  int64_t first_ = 0, last_ = 0;  // steps [first, last)
  Mesh& mesh_;
  c10::Device device_;
  std::optional<KernelProfile> gpu_;
  PipelineTrace trace_;
  double origin_ = 0;  // steady_seconds() at the step's begin
};

}  // namespace moetron
