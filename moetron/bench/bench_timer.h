// How the benchmarks measure time and memory on either kind of device.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <c10/core/Device.h>

#include "moetron/config/options.h"

namespace moetron {

// Waits until the current stream has done what is queued on it.
void synchronize(c10::Device device);

// Milliseconds that `work` takes, by events on a GPU's current stream and by the clock on a CPU. On
// return the work is done.
double measure_ms(c10::Device device, const std::function<void()>& work);

// The median of `iterations` runs of `work`, each behind a `prepare` that is not timed, after
// `warmup` more.
double median_seconds(const BenchOptions& bench, c10::Device device,
                      const std::function<void()>& work, const std::function<void()>& prepare = {});

// The upper of the two in the middle where their number is even. At least one value.
double median(std::vector<double> values);

// Bytes a second, read and written, of a copy within the device's memory.
double copy_bandwidth(c10::Device device);

}  // namespace moetron
