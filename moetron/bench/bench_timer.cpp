#include "moetron/bench/bench_timer.h"

#include <algorithm>
#include <chrono>

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "moetron/base/error.h"

namespace moetron {
c10::Stream current_stream(c10::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

void synchronize(c10::Device device) {
  if (device.is_cuda()) current_stream(device).synchronize();
}

double measure_ms(c10::Device device, const std::function<void()>& work) {
  if (!device.is_cuda()) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin)
        .count();
  }
  const c10::Stream stream = current_stream(device);
  c10::Event begin(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // the flag that keeps time
  c10::Event end(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  begin.record(stream);
  work();
  end.record(stream);
  end.synchronize();
  return begin.elapsedTime(end);
}

double median_seconds(const BenchOptions& bench, c10::Device device,
                      const std::function<void()>& work, const std::function<void()>& prepare) {
  std::vector<double> ms;
  for (int64_t i = 0; i < bench.warmup + bench.iterations; ++i) {
    if (prepare) prepare();
    const double time = measure_ms(device, work);
    if (i >= bench.warmup) ms.push_back(time);
  }
  return 1e-3 * median(std::move(ms));
}

std::vector<double> repeat_for(c10::Device device, double seconds, int64_t at_once,
                               const std::function<void()>& work,
                               const std::function<void()>& prepare) {
  const int64_t runs = prepare ? 1 : at_once;
  std::vector<double> times;
  double passed = 0;
  do {
    if (prepare) prepare();
    const double time = 1e-3 * measure_ms(device, [&] {
                          for (int64_t i = 0; i < runs; ++i) work();
                        });
    passed += time;
    times.push_back(time / static_cast<double>(runs));
  } while (passed < seconds);
  return times;
}

SteadyTime steady_time(c10::Device device, double seconds, const std::function<void()>& work,
                       const std::function<void()>& prepare) {
  constexpr double kLooks = 8;           // in the half that counts
  constexpr double kLongestLook = 0.02;  // seconds
  const double half = seconds / 2;
  for (int i = 0; i < 2; ++i) repeat_for(device, 0, 1, work, prepare);  // chooses kernels
  const double once = repeat_for(device, 0, 1, work, prepare).front();
  const double look = std::min(kLongestLook, half / kLooks);
  const auto at_once = std::max<int64_t>(1, static_cast<int64_t>(look / std::max(once, 1e-9)));
  repeat_for(device, half, at_once, work, prepare);
  return steady_time_of(repeat_for(device, half, at_once, work, prepare));
}

SteadyTime steady_time_of(const std::vector<double>& repetitions) {
  const double middle = median(repetitions);
  const auto [least, most] = std::minmax_element(repetitions.begin(), repetitions.end());
  return {middle, (*most - *least) / middle};
}

double median(std::vector<double> values) {
  MT_CHECK(!values.empty(), "the median of nothing");
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double copy_bandwidth(c10::Device device) {
  constexpr int64_t kBytes = int64_t{1} << 28;  // far beyond the caches
  const at::Tensor from = at::zeros({kBytes}, at::TensorOptions(device).dtype(at::kByte));
  const at::Tensor to = at::zeros_like(from);
  std::vector<double> times;
  for (int i = 0; i < 10; ++i) {
    times.push_back(measure_ms(device, [&] { to.copy_(from); }));
  }
  return 2.0 * kBytes / (median(std::move(times)) * 1e-3);
}

}  // namespace moetron
