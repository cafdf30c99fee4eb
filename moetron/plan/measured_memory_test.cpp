// What was measured on one H200 (benchmarks/h200.md), and what is counted for it.
#include <cstdio>

#include <gtest/gtest.h>

#include "moetron/base/units.h"
#include "moetron/plan/plan_test_data.h"

namespace moetron {
namespace {

// The slices of `moetron bench step`: layers that all have experts, 16 of them, between an
// embedding and a head of 32000 tokens, a micro-batch of 4096. Without an optimizer, as they were
// measured.
constexpr const char* kQwen =
    "simulate --config configs/published/qwen3_235b.toml --num-layers 4 --kv-channels 128 "
    "--num-experts 16 --vocab-size 32000 --world-size 1 --num-micro-batches 1 ";
constexpr const char* kDeepseek =
    "simulate --config configs/published/deepseek_v3.toml --num-layers 4 --first-k-dense-replace 0 "
    "--num-experts 16 --vocab-size 32000 --world-size 1 --num-micro-batches 1 "
    "--pipeline-model-parallel-size 1 --expert-model-parallel-size 1 ";

struct Measured {
  const char* slice;
  const char* options;
  double peak;  // GiB
  double ms;    // of a micro-batch, on a GPU at its power limit; 0: not measured
  bool in_fp8 = false;
};

constexpr Measured kMeasured[] = {
    {kQwen, "", 13.65, 53.4},
    {kQwen, "--mlp-recompute", 13.0, 58.8},
    {kQwen, "--moe-layer-recompute", 12.3, 61.1},
    {kQwen, "--recompute-granularity full", 11.4, 68.6},
    {kQwen, "", 15.8, 0, true},
    {kDeepseek, "", 31.24, 131.5},
    {kDeepseek, "--mlp-recompute", 30.5, 143.7},
    {kDeepseek, "--moe-layer-recompute", 29.1, 152.8},
    {kDeepseek, "--recompute-granularity full", 26.5, 170.9},
    {kDeepseek, "--mla-fuse-qkv", 30.95, 0},
    {kDeepseek, "", 37.2, 0, true},
};

TEST(MeasuredMemory, TheSlicesOfOneH200AreWithinThreePerCent) {
  const Hardware hardware = read_hardware("configs/hardware/h200.toml");
  for (const Measured& row : kMeasured) {
    const std::string words = std::string(row.slice) + row.options;
    RunSpec spec = run_spec(parse(words).options);
    if (row.in_fp8) spec.fp8 = Fp8Spec{.end_layer = spec.model.num_layers};
    const RankMemory memory = memory_of(spec).front();
    const double peak = (memory.tensors() - memory.optimizer) / kGibi;
    EXPECT_NEAR(peak, row.peak, 0.03 * row.peak) << words;
    const double ms =
        1e3 * predict(spec, hardware, make_schedule(spec.pipeline.request)).simulation.makespan;
    std::printf("%-8s %-4s %-30s %6.2f GiB, counted %6.2f (%+.1f %%)",
                row.slice == kQwen ? "qwen" : "deepseek", row.in_fp8 ? "fp8" : "bf16", row.options,
                row.peak, peak, 100 * (peak / row.peak - 1));
    if (row.ms > 0)
      std::printf("; %5.1f ms, predicted %5.1f (%+.0f %%)", row.ms, ms, 100 * (ms / row.ms - 1));
    std::printf("\n");
  }
}

// Nine layers whose states do not fit beside them: half of them on the host took 115 GiB of the GPU
// and 68 of the host, where gradients, too, lie.
TEST(MeasuredMemory, StatesOnTheHost) {
  RunSpec spec =
      run_spec(parse(std::string(kDeepseek) + "--num-layers 9 --num-micro-batches 4").options);
  spec.optimizer.is_hybrid = true;
  spec.optimizer.host_fraction = 0.5;
  spec.optimizer.pin_host_memory = true;
  const RankMemory memory = memory_of(spec).front();
  EXPECT_NEAR(memory.tensors() / kGibi, 115, 0.03 * 115);
  EXPECT_NEAR(memory.host / kGibi, 68, 0.03 * 68);
}

}  // namespace
}  // namespace moetron
