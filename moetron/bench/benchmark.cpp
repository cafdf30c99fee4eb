#include "moetron/bench/benchmark.h"

#include <ostream>
#include <vector>

#include "moetron/base/error.h"
#include "moetron/bench/bench_ops.h"
#include "moetron/bench/bench_overlap.h"
#include "moetron/bench/bench_slice.h"
#include "moetron/bench/bench_step.h"

namespace moetron {
namespace {

void set_defaults(Options& options) {
  if (!options.model.num_layers) options.model.num_layers = 4;
  if (options.training.seq_length == 0) options.training.seq_length = 4096;
  if (options.training.micro_batch_size == 0) options.training.micro_batch_size = 1;
}

ModelConfig slice_of(BenchSlice slice, const Options& options) {
  return slice_config(slice, *options.model.num_layers, options.training.seq_length);
}

std::vector<BenchSlice> slices_of(const Options& options) {
  if (options.bench.slice) return {*options.bench.slice};
  return {BenchSlice::kQwen3235b, BenchSlice::kDeepseekV3};
}

// What steps alone are measured with.
void check_plain(const Options& options, const char* benchmark) {
  const MemoryOptions& memory = options.memory;
  MT_CHECK_CONFIG(
      !memory.recompute_granularity && !memory.moe_layer_recompute && !memory.mlp_recompute,
      "bench ", benchmark, " recomputes nothing: leave out recompute-granularity, ",
      "moe-layer-recompute and mlp-recompute, which bench step takes");
  MT_CHECK_CONFIG(options.training.dtype != Dtype::kFp32, "bench ", benchmark,
                  " measures bf16: leave out dtype (fp32), which bench step takes");
}

void bench_step(const Options& options, c10::Device device, std::ostream& out) {
  const BenchOptions& bench = options.bench;
  MT_CHECK_CONFIG(bench.slice, "bench step needs --slice");
  const ModelConfig config = slice_of(*bench.slice, options);
  const StepReport report = measure_step(config, options, device);
  const std::string name = slice_name(*bench.slice);
  out << (options.report.json ? to_json_text(report, name, bench.profile_top)
                              : describe(report, name, bench.profile_top));
}

}  // namespace

void run_benchmark(Options options, c10::Device device, std::ostream& out) {
  set_defaults(options);
  MT_CHECK_CONFIG(options.training.seq_length >= 2,
                  "seq-length (1) must be at least 2: a token is labelled with the next one");
  switch (options.bench.benchmark) {
    case Benchmark::kStep:
      bench_step(options, device, out);
      break;
    case Benchmark::kOps:
      check_plain(options, "ops");
      bench_ops(slices_of(options), options, device, out);
      break;
    case Benchmark::kOverlap:
      check_plain(options, "overlap");
      for (const BenchSlice slice : slices_of(options)) {
        out << bench_overlap(slice_of(slice, options), slice_name(slice), options, device)
            << std::endl;
      }
      break;
  }
}

}  // namespace moetron
