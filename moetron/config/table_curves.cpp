// The commands that read what runs have logged.
#include "moetron/config/option_groups.h"

namespace moetron {
namespace {

std::string idle_with_bars(const Options& options) {
  return options.curves.bars.empty() ? "" : "it acts on curves, not on bars";
}

}  // namespace

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
  table
      .add(MT_FIELD(curves, metric),
           "What is compared or drawn: a number of metrics.jsonl by its key, as loss, grad_norm, "
           "tokens_per_second, memory_bytes or router_balance.max_load; an unknown one is answered "
           "with all that there are.")
      .idle_when(idle_with_bars);
  table.add(MT_FIELD(curves, labels),
            "What the runs are called, in their order; without it, by their paths, and bars by the "
            "folder's name.");
  table.add(MT_FIELD(curves, picture),
            "Draws into this .png or .svg file; without it, plot draws METRIC.png beside the first "
            "run, and compare-loss nothing.");
  table
      .add(MT_FIELD(curves, smooth),
           "Takes the mean of each point and those before it, so many together; the first ones, "
           "which have too few before them, are left out.")
      .unit("points")
      .count()
      .idle_when(idle_with_bars);
  table
      .add(MT_FIELD(curves, tolerance),
           "The greatest difference of a step over the greater of its two values; 0: the same "
           "bits, of the tensors too where both runs were written with hash-steps. compare-loss "
           "ends "
           "with exit code 1 where a step is past it.")
      .for_commands({Command::kCompareLoss})
      .at_least(0);
  table
      .add(MT_FIELD(curves, bars),
           "Draws bars instead of curves: of each run the median of this metric, without its first "
           "steps; or the rows of one table (CSV) with columns label, group, and value or the "
           "metric's name.")
      .for_commands({Command::kPlot});
  table.add(MT_FIELD(curves, log_x), "Draws steps on a logarithmic axis; a step 0 has no place.")
      .for_commands({Command::kPlot})
      .idle_when(idle_with_bars);
  table
      .add(MT_FIELD(curves, log_y),
           "Draws values on a logarithmic axis; those that are not above 0 have no place, and are "
           "counted. Without it, a curve that at least halves is drawn so where all are above 0.")
      .for_commands({Command::kPlot})
      .idle_when(idle_with_bars);
}

}  // namespace moetron
