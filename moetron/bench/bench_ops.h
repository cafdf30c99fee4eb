// `moetron bench ops`: every kernel against what the device allows.
#pragma once

#include <cstdint>
#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include <c10/core/Device.h>

#include "moetron/arch/model_config.h"
#include "moetron/bench/kernel_cases.h"
#include "moetron/config/options.h"

namespace moetron {

// "KERNEL SHAPE MS RATE FLOOR SHARE" of a case that took so many seconds, in the columns of
// `bench ops`.
std::string kernel_row(const KernelCase& kernel, double seconds, const Ceilings& ceilings);

// Visits every kernel of a layer of `model`, of its head and loss, and of the optimizer, on the
// current GPU in bf16 on fresh random data. A case's tensors live as long as its visit.
void visit_kernel_cases(const ModelConfig& model, int64_t batch, int64_t seq,
                        const std::function<void(const KernelCase&)>& visit);

// Measures the ceilings, then writes one line a kernel as it goes: medians of runs, each of which
// finds none of its inputs in the cache. Reads of the options: training (sizes), bench, runtime
// (seed). Throws ConfigError where `device` is no GPU.
void bench_ops(const std::vector<BenchSlice>& slices, const Options& options, c10::Device device,
               std::ostream& out);

}  // namespace moetron
