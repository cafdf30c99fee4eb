// How the ranks of a run are started.
#include "moetron/config/option_groups.h"

namespace moetron {

void declare_launch(OptionTable& table) {
  table.begin_group("launch", "Launching", {Command::kLaunch});
  table
      .add(MT_FIELD(launch, nproc_per_node),
           "Ranks on this machine, for which -n N is short; without it one for each GPU, or one. "
           "The first word behind the options of launch is the command that every rank runs.")
      .unit("ranks")
      .at_least(1)
      .at_most(4096);
  table.add(MT_FIELD(launch, nnodes), "Machines, each of which starts as many ranks.")
      .unit("machines")
      .at_least(1)
      .at_most(100'000);
  table.add(MT_FIELD(launch, node_rank), "Which of the machines this is, from 0 on.")
      .at_least(0)
      .at_most(99'999);
  table.add(MT_FIELD(launch, master_addr),
            "The machine with node-rank 0; on a single machine, this one.");
  table
      .add(MT_FIELD(launch, master_port),
           "The port where the ranks meet there, and of a restart the next one; without it 29500, "
           "on a single machine one that is free.")
      .at_least(1)
      .at_most(65'535);
  table
      .add(MT_FIELD(launch, max_restarts),
           "How often all ranks are started again when one has died or failed in a way that a "
           "restart may mend.")
      .unit("restarts")
      .at_least(0)
      .at_most(10'000);
  table.add(MT_FIELD(launch, log_dir),
            "Folder of a file rank_N.log for what each rank but 0 prints; without it, all of them "
            "print on the screen.");
}

}  // namespace moetron
