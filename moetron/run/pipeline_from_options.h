// The pipeline that options describe.
#pragma once

#include <cstdint>

#include "moetron/config/options.h"
#include "moetron/run/run_spec.h"

namespace moetron {

// Under 1f1b a rank has one stage, or two (then the kind is interleaved) if any of these says so:
// twice as many numbers in hetero-pipeline-stages as there are ranks,
// virtual-hetero-pipeline-stages, num-virtual-stages-per-pipeline-rank,
// num-layers-per-virtual-pipeline-stage. Layers are divided as these say, else as evenly as
// possible. Throws ConfigError naming the options that do not fit the schedule, the model or each
// other. Whether the schedule can run so many micro-batches is make_schedule()'s to check.
PipelineSettings pipeline_settings(const ParallelOptions& options, int64_t num_layers,
                                   int64_t num_micro_batches);

}  // namespace moetron
