#include "moetron/plan/dry_run_report.h"

#include "moetron/base/error.h"
#include "moetron/base/formatted.h"
#include "moetron/base/units.h"
#include "moetron/metrics/step_printer.h"
#include "moetron/run/describe_run.h"

namespace moetron {
namespace {

std::string describe_run(const DryRun& run, const RunSpec& spec) {
  std::string text = concat(
      "model     ", describe_model(spec.model), "; ",
      readable_number(static_cast<double>(run.elements.active()) / 1e6), " M active for a token",
      spec.dtype == Dtype::kFp32 ? "; fp32" : "; bf16", spec.fp8 ? ", products in 8 bits" : "");
  if (const std::string part = describe_tuning(spec, run.trained); !part.empty())
    text += concat("\ntrained   ", part);
  text += concat("\nmesh      ", describe(spec.sizes));
  if (spec.sizes.world > 1) text += concat("\n          ", describe_groups(spec.sizes));
  text += concat("\npipeline  ", describe_pipeline(spec));
  text +=
      concat("\nbatch     ", spec.batch.global_batch_size, " sequences of ", spec.batch.seq_length,
             " tokens, ", spec.batch.micro_batch_size, " at a time on a rank");
  return text;
}

std::string memory_table(const std::vector<RankMemory>& memory) {
  std::string text =
      formatted("\nmemory    %4s %8s %9s %9s %11s %8s %10s %8s %9s", "rank", "weights", "gradients",
                "optimizer", "activations", "working", "travelling", "runtime", "total GB");
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    const RankMemory& held = memory[rank];
    text += formatted("\n          %4zu %8.2f %9.2f %9.2f %11.2f %8.2f %10.2f %8.2f %9.2f", rank,
                      held.weights / kGiga, held.gradients / kGiga, held.optimizer / kGiga,
                      held.activations / kGiga, held.working / kGiga, held.travelling / kGiga,
                      held.runtime / kGiga, held.total() / kGiga);
  }
  return text;
}

std::string describe_times(const DryRun& run) {
  const StepParts& parts = run.parts;
  const Prediction& prediction = run.prediction;
  return formatted(
      "\nstep      %.4g s: compute %.4g, exposed communication %.4g, reduction of gradients %.4g, "
      "waiting for stages %.4g, optimizer %.4g"
      "\nspeed     %.1f tokens/s/GPU, %.1f TFLOP/s/GPU",
      prediction.step_time, parts.compute, parts.exposed, parts.reduced, parts.waiting,
      parts.optimizer, prediction.tokens_per_second, prediction.flops_per_second / 1e12);
}

}  // namespace

std::string describe(const DryRun& run, const RunSpec& spec, const Hardware& hardware) {
  std::string text = describe_run(run, spec) + memory_table(run.prediction.memory);
  text += formatted("\n          most on rank %d: %.2f of %.2f GB", run.fullest,
                    run.most().total() / kGiga, hardware.memory / kGiga);
  if (spec.optimizer.is_hybrid) {
    text += formatted("\nhost      at most %.2f GB a rank, of %.2f GB for each GPU of a node",
                      run.most().host / kGiga, host_share(hardware) / kGiga);
  }
  text += describe_times(run);
  if (spec.fp8)
    text += "\n          (times are those of bf16: the hardware has no rates of 8 bits)";
  if (spec.operators.plain || spec.operators.plain_attention)
    text += "\n          (memory and times are those of the fastest operators, not of plain ones)";
  return text + concat("\nsave      ", readable_count(run.checkpoint.weights),
                       " bytes of weights, ", readable_count(run.checkpoint.optimizer),
                       " of optimizer states");
}

std::string describe_overflow(const std::vector<RankMemory>& memory, const Hardware& hardware) {
  const int fullest = fullest_rank(memory);
  const double most = memory[static_cast<size_t>(fullest)].total();
  if (most > hardware.memory) {
    return formatted("rank %d of the pipeline would hold %.2f GB of a GPU's %.2f GB", fullest,
                     most / kGiga, hardware.memory / kGiga);
  }
  for (size_t rank = 0; rank < memory.size(); ++rank) {
    const double host = memory[rank].host;
    if (host <= host_share(hardware)) continue;
    return formatted(
        "rank %zu of the pipeline would hold %.2f GB of its host, which has %.2f GB for each GPU",
        rank, host / kGiga, host_share(hardware) / kGiga);
  }
  throw InternalError("every rank has the memory that it needs");
}

}  // namespace moetron
