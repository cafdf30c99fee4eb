// What `moetron bench` measures.
#pragma once

#include <iosfwd>

#include <c10/core/Device.h>

#include "moetron/config/options.h"

namespace moetron {

// Runs the benchmark that the options name and writes its report. Where the options say nothing,
// the sizes are those of torch_slice.py. Throws ConfigError for options that the benchmark does not
// take.
void run_benchmark(Options options, c10::Device device, std::ostream& out);

}  // namespace moetron
