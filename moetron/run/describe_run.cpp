#include "moetron/run/describe_run.h"

#include "moetron/arch/inventory.h"
#include "moetron/base/error.h"
#include "moetron/metrics/step_printer.h"

namespace moetron {

std::string describe_model(const ModelConfig& model) {
  const auto total = static_cast<double>(count_parameters(tensor_inventory(model)));
  std::string text = concat(family_name(model.family), ", ", readable_number(total / 1e6),
                            " M parameters, ", model.num_layers, " layers");
  if (model.num_moe_layers() > 0)
    text += concat(", ", model.moe->num_experts, " experts, ", model.moe->top_k, " a token");
  return text + concat(", vocabulary ", model.vocab_size);
}

std::string describe_tuning(const RunSpec& spec, int64_t trained) {
  const std::string millions = concat(readable_number(static_cast<double>(trained) / 1e6), " M");
  std::string names;
  const auto& listed = spec.lora ? spec.lora->targets : spec.frozen.names;
  for (const std::string& name : listed) names += concat(names.empty() ? "" : ", ", name);
  if (spec.lora) {
    return concat("low-rank updates (rank ", spec.lora->rank, ", scale ", spec.lora->scale(),
                  ") of ", names, ": ", millions, " parameters; all others are frozen");
  }
  if (spec.frozen.empty()) return "";
  return concat(millions, " parameters; frozen: ", names);
}

std::string describe_pipeline(const RunSpec& spec) {
  const ScheduleRequest& request = spec.pipeline.request;
  const Placement placement = placement_of(request);
  std::string text =
      concat(name_of(request.kind), ", ", request.num_micro_batches, " micro-batches a step;");
  for (int chunk = 0; chunk < placement.num_chunks(); ++chunk) {
    if (placement.num_chunks() > 1) text += concat(chunk > 0 ? "," : "", " chunk ", chunk);
    text += " layers";
    for (int rank = 0; rank < request.num_ranks; ++rank) {
      const auto stage = static_cast<size_t>(placement.stage(rank, chunk));
      text += concat(" ", spec.pipeline.stages[stage].count);
    }
  }
  return text;
}

}  // namespace moetron
