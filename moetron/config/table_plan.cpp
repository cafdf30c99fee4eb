// The search for a layout.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_plan(OptionTable& table) {
  table.begin_group("plan", "Planning", {Command::kPlan});
  table.add(MT_FIELD(plan, write),
            "TOML file for the best layout found, with the options of the run: pretrain takes it.");
  table
      .add(MT_FIELD(plan, memory_limit),
           "What a rank may hold of its GPU; without it, all that the hardware has.")
      .unit("GiB")
      .above(0);
  table
      .add(MT_FIELD(plan, max_tensor_model_parallel_size),
           "Most ranks that may share a dense layer, or an expert; never more than a node has.")
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(plan, max_pipeline_model_parallel_size),
           "Most ranks that the layers may be divided among.")
      .unit("ranks")
      .count();
  table
      .add(MT_FIELD(plan, max_expert_model_parallel_size),
           "Most ranks that the experts of a layer may be divided among.")
      .unit("ranks")
      .count();
  table.add(MT_FIELD(plan, max_micro_batch_size), "Most sequences that a rank may compute at once.")
      .unit("sequences")
      .count();
  table.add(
      MT_FIELD(plan, calibrate),
      "Instead of the search, measures this machine and writes a file for --hardware; under a "
      "launcher also the links between the ranks. Takes no options of a run.");
  table.add(MT_FIELD(plan, out),
            "The file of calibrate; without it the device's name, or --name, with .toml, here.");
  table.add(MT_FIELD(plan, name),
            "What calibrate calls the machine; without it the device's name.");
  table
      .add(MT_FIELD(plan, calibrate_seconds),
           "How long calibrate repeats each of the operations that it measures, half of it unseen.")
      .unit("seconds")
      .above(0)
      .at_most(10);
}

}  // namespace moetron
