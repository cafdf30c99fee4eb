// The commands that read what runs have logged.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_curves(OptionTable& table) {
  const std::vector<Command> both{Command::kCompareLoss, Command::kPlot};
  table.begin_group("curves", "Curves of runs", both);
  table
      .add(MT_FIELD(curves, runs),
           "Runs, each a metrics.jsonl, a log of Megatron, golden values of its tests (JSON), a "
           "table with a column of steps (CSV), a TensorBoard event file, or a folder with a "
           "metrics.jsonl or event files; the name --runs may be left out.")
      .required()
      .positional();
  table.add(MT_FIELD(curves, metric),
            "What is compared or drawn: loss, validation_loss, aux_loss, grad_norm, lr, "
            "tokens_per_second, tflops_per_second, mfu or seconds.");
  table.add(MT_FIELD(curves, picture),
            "Draws into this .png or .svg file; without it, plot draws METRIC.png beside the first "
            "run, and compare-loss nothing.");
  table
      .add(MT_FIELD(curves, smooth),
           "Takes the mean of each point and those before it, so many together; the first ones, "
           "which have too few before them, are left out.")
      .unit("points")
      .count();
  table
      .add(MT_FIELD(curves, tolerance),
           "The greatest difference of a step over the greater of its two values; 0: the same "
           "bits, of the tensors too where both runs were written with hash-steps. compare-loss "
           "ends "
           "with exit code 1 where a step is past it.")
      .for_commands({Command::kCompareLoss})
      .at_least(0);
}

}  // namespace moetron
