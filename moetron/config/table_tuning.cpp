// Training a part of a model: frozen parts, and low-rank updates.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_without_lora(const Options& options) {
  return options.tuning.lora_rank > 0 ? "" : "it acts with lora-rank only";
}

std::string idle_with_lora(const Options& options) {
  return options.tuning.lora_rank > 0 ? "lora-rank freezes all weights of the model" : "";
}

}  // namespace

void declare_tuning(OptionTable& table) {
  table.begin_group("tuning", "Training a part", {Command::kPretrain});
  table
      .add(MT_FIELD(tuning, freeze),
           "Parts that are only read, without gradients and optimizer states: embedding, head, "
           "router, experts, shared_experts, attention, mlp, norms, or names of tensors with * for "
           "any text; several with commas between them.")
      .ours()
      .idle_when(idle_with_lora)
      .deciding_training();
  table
      .add(MT_FIELD(tuning, lora_rank),
           "Trains updates of this rank beside the model's weights, which are only read (LoRA); "
           "they are saved as an adapter of PEFT's. 0: none.")
      .count_or_zero()
      .ours()
      .deciding_training();
  table
      .add(MT_FIELD(tuning, lora_alpha),
           "An update counts lora-alpha / lora-rank times; without it twice.")
      .above(0)
      .ours()
      .idle_when(idle_without_lora)
      .deciding_training();
  table.add(MT_FIELD(tuning, lora_dropout), "Dropout of what an update reads.")
      .only("0", "dropout of what an update reads")
      .ours();
  table
      .add(MT_FIELD(tuning, lora_targets),
           "Linear layers that have updates, as PEFT calls them (q_proj, v_proj, down_proj), and "
           "experts, experts.gate_up_proj, experts.down_proj of routed experts; without it all of "
           "attention, MLPs and experts.")
      .ours()
      .idle_when(idle_without_lora)
      .deciding_training();
  table
      .add(MT_FIELD(tuning, base),
           "Model directory that an adapter in load or save belongs to, where it is not the one "
           "that the adapter names.")
      .for_commands({Command::kPretrain, Command::kGenerate, Command::kChat})
      .ours();
}

}  // namespace moetron
