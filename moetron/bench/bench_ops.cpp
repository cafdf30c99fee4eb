#include "moetron/bench/bench_ops.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <optional>
#include <ostream>
#include <vector>

#include <ATen/ATen.h>

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_timer.h"
#include "moetron/bench/gpu_sensors.h"

namespace moetron {
namespace {

constexpr int64_t kCopied = int64_t{1} << 30;   // bytes
constexpr int64_t kFlushed = int64_t{1} << 30;  // bytes, far more than the cache
constexpr int64_t kCube = 8192;
constexpr double kTogether = 0.02;  // seconds of runs between two looks at the clock

class KernelTimer {
 public:
  KernelTimer(const BenchOptions& bench, c10::Device device)
      : bench_(bench),
        device_(device),
        flushed_(at::zeros({kFlushed / 4}, at::TensorOptions(device).dtype(at::kFloat))) {}

  double seconds(const std::function<void()>& run,
                 const std::function<void()>& prepare = {}) const {
    return median_seconds(bench_, device_, run, [&] {
      if (prepare) prepare();
      // The cache forgets the inputs. As this only reads, nothing is left to be written back while
      // the run is timed; and it takes longer than the host needs to issue the run.
      flushed_.sum();
    });
  }

  // What a kernel does again and again, without a pause.
  struct Sustained {
    double seconds = 0;  // of one run
    double watts = 0;
    double megahertz = 0;
  };
  Sustained sustain(const KernelCase& kernel, const GpuSensors* sensors) const {
    const double once = seconds(kernel.run, kernel.prepare);
    const auto at_once = std::max<int64_t>(1, static_cast<int64_t>(kTogether / once));
    const auto repeat = [&] {
      return repeat_for(device_, bench_.sustain / 2, at_once, kernel.run, kernel.prepare);
    };
    repeat();
    const double before = sensors != nullptr ? sensors->joules() : 0;
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<double> runs = repeat();  // of equally many each
    const double sum = std::accumulate(runs.begin(), runs.end(), 0.0);
    Sustained result{.seconds = sum / static_cast<double>(runs.size())};
    if (sensors != nullptr) {
      const std::chrono::duration<double> all = std::chrono::steady_clock::now() - begin;
      result.watts = (sensors->joules() - before) / all.count();  // preparations included
      result.megahertz = sensors->megahertz();
    }
    return result;
  }

  Ceilings measure_ceilings() const {
    Ceilings ceilings;
    const auto options = at::TensorOptions(device_);
    {
      const at::Tensor from = at::zeros({kCopied}, options.dtype(at::kByte));
      const at::Tensor to = at::empty_like(from);
      ceilings.copied_bytes = 2.0 * kCopied / seconds([&] { to.copy_(from); });
    }
    const KernelCase product = cube();
    ceilings.product_flops = product.flops / seconds(product.run);
    return ceilings;
  }

  // The product that shows what the tensor cores reach. Of zeros it is a tenth faster.
  KernelCase cube() const {
    const auto factor = [&] {
      return at::randn({kCube, kCube}, at::TensorOptions(device_).dtype(at::kBFloat16));
    };
    const at::Tensor a = factor(), b = factor(), product = at::empty_like(a);
    return {.name = "at::mm",
            .shape = "[8192, 8192] of bf16",
            .flops = 2.0 * kCube * kCube * kCube,
            .run = [=] {
              at::Tensor out = product;
              at::mm_out(out, a, b);
            }};
  }

 private:
  BenchOptions bench_;
  c10::Device device_;
  at::Tensor flushed_;
};

}  // namespace

std::string kernel_row(const KernelCase& kernel, double seconds, const Ceilings& ceilings) {
  const bool is_memory_bound = kernel.is_memory_bound(ceilings);
  const double rate =
      is_memory_bound ? kernel.bytes / seconds / kGiga : kernel.flops / seconds / kTera;
  const double floor = kernel.floor(ceilings);
  return formatted("%-34s %-38s %8.4f %6.0f %-7s %8.4f %5.1f %%", kernel.name.c_str(),
                   kernel.shape.c_str(), seconds / kMilli, rate,
                   is_memory_bound ? "GB/s" : "TFLOP/s", floor / kMilli, 100 * floor / seconds);
}

void bench_ops(const std::vector<BenchSlice>& slices, const Options& options, c10::Device device,
               std::ostream& out) {
  MT_CHECK_CONFIG(device.is_cuda(), "bench ops measures GPU kernels: device (", device,
                  ") must be cuda");
  at::manual_seed(static_cast<uint64_t>(options.runtime.seed));
  const int64_t batch = options.training.micro_batch_size, seq = options.training.seq_length;
  const KernelTimer timer(options.bench, device);
  const Ceilings ceilings = timer.measure_ceilings();
  out << formatted(
             "ceilings: a copy of 1 GiB %.0f GB/s read and written, a product of 8192^3 %.0f "
             "TFLOP/s\n",
             ceilings.copied_bytes / kGiga, ceilings.product_flops / kTera)
      << std::flush;
  const bool sustains = options.bench.sustain > 0;
  const std::optional<GpuSensors> sensors =
      sustains ? GpuSensors::open(device) : std::optional<GpuSensors>();
  const auto measure = [&](const KernelCase& kernel) {
    if (!sustains) {
      const double seconds = timer.seconds(kernel.run, kernel.prepare);
      out << kernel_row(kernel, seconds, ceilings) << std::endl;
      return;
    }
    const auto sustained = timer.sustain(kernel, sensors ? &*sensors : nullptr);
    out << kernel_row(kernel, sustained.seconds, ceilings);
    if (sensors) out << formatted(" %6.0f W %6.0f MHz", sustained.watts, sustained.megahertz);
    out << std::endl;
  };
  if (sensors) out << formatted("the power limit is %.0f W\n", sensors->power_limit());
  if (sustains) measure(timer.cube());
  for (const BenchSlice slice : slices) {
    out << formatted("\n%s, %lld x %lld tokens\n%-34s %-38s %8s %14s %8s %7s\n", slice_name(slice),
                     static_cast<long long>(batch), static_cast<long long>(seq), "kernel", "shape",
                     "ms", "rate", "floor", "share");
    visit_kernel_cases(slice_config(slice, /*num_layers=*/1, seq), batch, seq, measure);
  }
}

}  // namespace moetron
