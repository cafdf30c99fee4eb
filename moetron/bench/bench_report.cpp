// What a benchmark of steps has measured, as text and as JSON.
#include <algorithm>

#include <nlohmann/json.hpp>

#include "moetron/base/formatted.h"
#include "moetron/base/json.h"
#include "moetron/base/units.h"
#include "moetron/bench/bench_step.h"

namespace moetron {
namespace {

double gibibytes(int64_t bytes) {
  return static_cast<double>(bytes) / kGibi;
}

// Of what the copy of as many bytes takes: 1 is all that the memory gives.
double share_of_copy(double bytes, double ms, double bandwidth) {
  return bytes / bandwidth / (ms * 1e-3);
}

std::string row(const StepReport& report, const char* what, double ms, int64_t peak_bytes) {
  return formatted("%-32s %9.2f ms %8.1f TFLOP/s %9.0f tokens/s %8.2f GiB\n", what, ms,
                   report.tflops_per_second(ms), report.tokens_per_second(ms),
                   gibibytes(peak_bytes));
}

std::string optimizer_lines(const OptimizerSpeed& speed) {
  const auto copy = speed.copy_bandwidth;
  std::string text = "\n";
  if (copy) text += formatted("%-32s %24.0f GB/s\n", "copy on the device", *copy / 1e9);
  const auto add = [&](const char* what, double ms, double bytes) {
    text +=
        formatted("%-32s %9.2f ms %8.2f GB %8.0f GB/s", what, ms, bytes / 1e9, bytes / ms / 1e6);
    if (copy) text += formatted(" %5.1f %% of the copy", 100 * share_of_copy(bytes, ms, *copy));
    text += "\n";
  };
  add("gradient norm", speed.norm_ms, speed.norm_bytes);
  add("AdamW", speed.update_ms, speed.update_bytes);
  return text;
}

std::string kernel_lines(const KernelTimes& times, const char* what, int64_t num_kernels) {
  std::string text = formatted("\n%s under the profiler: %.2f ms, %lld kernels and copies\n", what,
                               times.span_ms, static_cast<long long>(times.num_runs));
  const auto add = [&](const char* name, double ms) {
    text += formatted("  %-14s %9.3f ms %6.1f %%\n", name, ms, 100 * ms / times.span_ms);
  };
  for (size_t kind = 0; kind < kNumKernelKinds; ++kind)
    add(kernel_kind_name(static_cast<KernelKind>(kind)), times.ms[kind]);
  add("idle", times.idle_ms);
  const size_t count = std::min(times.kernels.size(), static_cast<size_t>(num_kernels));
  if (count > 0) text += "\n";
  for (size_t i = 0; i < count; ++i) {
    const NamedKernel& kernel = times.kernels[i];
    text += formatted("  %9.3f ms %5lld x  %-13s %.140s\n", kernel.ms,
                      static_cast<long long>(kernel.num_runs),
                      kernel_kind_name(kind_of_kernel(kernel.name)), kernel.name.c_str());
  }
  return text;
}

Json kernels_json(const KernelTimes& times, int64_t num_kernels) {
  Json json{{"span_ms", times.span_ms}, {"idle_ms", times.idle_ms}, {"runs", times.num_runs}};
  for (size_t kind = 0; kind < kNumKernelKinds; ++kind)
    json["ms"][kernel_kind_name(static_cast<KernelKind>(kind))] = times.ms[kind];
  json["longest"] = Json::array();
  for (const NamedKernel& kernel : times.kernels) {
    if (static_cast<int64_t>(json["longest"].size()) == num_kernels) break;
    json["longest"].push_back(
        {{"name", kernel.name}, {"runs", kernel.num_runs}, {"ms", kernel.ms}});
  }
  return json;
}

}  // namespace

std::string describe(const StepReport& report, const std::string& name, int64_t num_kernels) {
  const MicroBatchSpeed& speed = report.micro_batch;
  std::string text = formatted(
      "%s, %lld layers, %.2f G parameters, %s on %s, %lld x %lld tokens, %.2f TFLOP, loss %.4f\n\n",
      name.c_str(), static_cast<long long>(report.num_layers),
      static_cast<double>(report.num_parameters) / 1e9, report.dtype.c_str(), report.device.c_str(),
      static_cast<long long>(report.micro_batch_size), static_cast<long long>(report.seq_length),
      report.flops / 1e12, speed.loss);
  text += row(report, "first micro-batch, which writes", speed.first_ms, speed.peak_bytes);
  text += row(report, "next micro-batch, which adds", speed.next_ms, speed.peak_bytes);
  if (speed.power) {
    text += formatted("%-32s %9.0f W  of the %.0f W allowed, at %.0f MHz in the end\n",
                      "power over these micro-batches", speed.power->watts, speed.power->limit,
                      speed.power->megahertz);
  }
  if (report.optimizer) {
    text += row(report, "step with the optimizer", report.optimizer->step_ms,
                report.optimizer->peak_bytes);
    text += optimizer_lines(*report.optimizer);
  }
  if (report.kernels) {
    text +=
        kernel_lines(*report.kernels, report.optimizer ? "step" : "first micro-batch", num_kernels);
  } else {
    text += "\nwhere the time goes is shown of a GPU only\n";
  }
  return text + formatted("\nmoetron %s: %.1f ms %.0f TFLOP/s %.0f tokens/s peak %.1f GiB\n",
                          name.c_str(), speed.first_ms, report.tflops_per_second(speed.first_ms),
                          report.tokens_per_second(speed.first_ms), gibibytes(speed.peak_bytes));
}

std::string to_json_text(const StepReport& report, const std::string& name, int64_t num_kernels) {
  const MicroBatchSpeed& speed = report.micro_batch;
  const auto rate = [&](double ms) -> Json {
    return {{"ms", ms},
            {"tflops_per_second", report.tflops_per_second(ms)},
            {"tokens_per_second", report.tokens_per_second(ms)}};
  };
  Json json{{"slice", name},
            {"device", report.device},
            {"dtype", report.dtype},
            {"layers", report.num_layers},
            {"parameters", report.num_parameters},
            {"micro_batch_size", report.micro_batch_size},
            {"seq_length", report.seq_length},
            {"flops", report.flops},
            {"loss", speed.loss},
            {"first", rate(speed.first_ms)},
            {"next", rate(speed.next_ms)},
            {"peak_bytes", speed.peak_bytes}};
  if (speed.power) {
    json["power"] = {{"watts", speed.power->watts},
                     {"limit", speed.power->limit},
                     {"megahertz", speed.power->megahertz}};
  }
  if (report.optimizer) {
    const OptimizerSpeed& optimizer = *report.optimizer;
    json["step"] = rate(optimizer.step_ms);
    json["optimizer"] = {{"norm_ms", optimizer.norm_ms},
                         {"norm_bytes", optimizer.norm_bytes},
                         {"update_ms", optimizer.update_ms},
                         {"update_bytes", optimizer.update_bytes},
                         {"peak_bytes", optimizer.peak_bytes}};
    if (const auto copy = optimizer.copy_bandwidth) {
      json["optimizer"]["copy_bytes_per_second"] = *copy;
      json["optimizer"]["update_share_of_copy"] =
          share_of_copy(optimizer.update_bytes, optimizer.update_ms, *copy);
    }
  }
  if (report.kernels) json["kernels"] = kernels_json(*report.kernels, num_kernels);
  return json.dump(2) + "\n";
}

}  // namespace moetron
