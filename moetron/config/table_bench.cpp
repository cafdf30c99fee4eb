// The benchmarks, and what several commands beside training give out.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

// Of other commands than bench too: their options say step.
std::string idle_beyond_step(const Options& options) {
  return options.bench.benchmark == Benchmark::kStep ? "" : "it acts with bench step only";
}

std::string idle_beyond_ops(const Options& options) {
  return options.bench.benchmark == Benchmark::kOps ? "" : "it acts with bench ops only";
}

std::string idle_beyond_overlap(const Options& options) {
  return options.bench.benchmark == Benchmark::kOverlap ? "" : "it acts with bench overlap only";
}

}  // namespace

void declare_bench(OptionTable& table) {
  table.begin_group("bench", "Benchmarks", {Command::kBench});
  table
      .add(MT_FIELD(bench, benchmark),
           "What is measured; step: forward and backward of a few layers on one device; ops: each "
           "kernel beside the bytes or FLOPs that it cannot do without; overlap: what the block of "
           "a forward and a backward hides of expert communication. The name --benchmark may be "
           "left out.")
      .one_of(
          {{"step", Benchmark::kStep}, {"ops", Benchmark::kOps}, {"overlap", Benchmark::kOverlap}})
      .required()
      .positional();
  table
      .add(MT_FIELD(bench, slice),
           "The model whose layers are taken, with 16 experts, top-8 and a vocabulary of 32000; of "
           "ops and overlap, both without it.")
      .one_of({{"qwen3-235b", BenchSlice::kQwen3235b}, {"deepseek-v3", BenchSlice::kDeepseekV3}});
  table.add(MT_FIELD(bench, warmup), "Iterations before the measured ones.")
      .unit("iterations")
      .count_or_zero();
  table.add(MT_FIELD(bench, iterations), "Measured iterations, of which medians are taken.")
      .unit("iterations")
      .count();
  table
      .add(MT_FIELD(bench, with_optimizer),
           "Measures whole steps too: gradient norm, clipping and AdamW.")
      .idle_when(idle_beyond_step);
  table.add(MT_FIELD(bench, profile_top), "Lists so many GPU kernels that took the most time.")
      .unit("kernels")
      .count_or_zero()
      .idle_when(idle_beyond_step);
  table
      .add(MT_FIELD(bench, ep),
           "Ranks, each with experts like the slice's, of which one rank's exchange is imitated.")
      .unit("ranks")
      .at_least(2)
      .at_most(1024)
      .idle_when(idle_beyond_overlap);
  table
      .add(MT_FIELD(bench, sustain),
           "Repeats each kernel for so long and measures the second half: what it does on a GPU "
           "that has reached its power limit, as in training. 0: one run at a time, the caches "
           "emptied, on a GPU that rests in between.")
      .unit("seconds")
      .at_least(0)
      .at_most(600)
      .idle_when(idle_beyond_ops);
  table
      .add(MT_FIELD(bench, rest),
           "Waits so long before each measured micro-batch: how fast it is on a GPU that is far "
           "from "
           "its power limit.")
      .unit("seconds")
      .at_least(0)
      .at_most(60)
      .idle_when(idle_beyond_step);
}

void declare_report(OptionTable& table) {
  table.begin_group("report", "Reports",
                    {Command::kSimulate, Command::kExplain, Command::kCompareLoss, Command::kBench,
                     Command::kDoctor, Command::kPlan});
  table.add(MT_FIELD(report, json), "Prints JSON.").idle_when(idle_beyond_step);
  table
      .add(
          MT_FIELD(report, trace),
          "Writes a Chrome trace of the schedule, or of a benchmark's micro-batch, into this file.")
      .for_commands({Command::kSimulate, Command::kBench})
      .idle_when(idle_beyond_step);
}

}  // namespace moetron
