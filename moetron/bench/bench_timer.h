// How the benchmarks measure time and memory on either kind of device.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

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

// Where the current thread's operations on the device go.
c10::Stream current_stream(c10::Device device);

// Runs `work` without a pause for at least so many seconds, `at_once` runs between two looks at the
// clock (one where there is a `prepare`, which is not timed). Returns the seconds of a run, once
// for each look; one at least.
std::vector<double> repeat_for(c10::Device device, double seconds, int64_t at_once,
                               const std::function<void()>& work,
                               const std::function<void()>& prepare = {});

// Of a run of `work` in its stride: on a GPU, at the clock that its power limit leaves it.
struct SteadyTime {
  double seconds = 0;  // the median
  double spread = 0;   // from the least to the most, over the median
};
// Repeats `work` for so many seconds, of which the second half counts.
SteadyTime steady_time(c10::Device device, double seconds, const std::function<void()>& work,
                       const std::function<void()>& prepare = {});
SteadyTime steady_time_of(const std::vector<double>& repetitions);  // one at least

// The upper of the two in the middle where their number is even. At least one value.
double median(std::vector<double> values);

// Bytes a second, read and written, of a copy within the device's memory.
double copy_bandwidth(c10::Device device);

}  // namespace moetron
